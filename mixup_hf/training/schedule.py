"""Which generated rows a batch gets, as arithmetic: no random numbers, nothing to save or restore.

With `mix_ratio` r, x real rows are joined by floor(x * r / (1 - r)) generated ones, counted from
the beginning of training over all processes. So the batch with real rows x..x+n takes the generated
rows from floor(x * rho) to floor((x + n) * rho), with rho = r / (1 - r). The ratio holds on average
for any batch size, every row is used before one is used twice, and all that a batch needs to know
is its number.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch.utils.data import IterableDataset

from mixup_hf import runtime

_LARGEST_DENOMINATOR = 1_000_000


def mixed_per_real(mix_ratio: float) -> Fraction:
    """Generated rows per real row, as an exact fraction."""
    share = Fraction(mix_ratio).limit_denominator(_LARGEST_DENOMINATOR)
    return share / (1 - share)


@dataclass(frozen=True)
class Schedule:
    """The rows of each batch, and how many a run needs by when.

    Epochs are counted from the first one that mixes. A position is relative to its refill.

    Args:
        ratio: Generated rows per real row.
        batch_size: Real rows in a full batch of one process.
        epoch_rows: Real rows of an epoch, over all processes.
        refill_every: Epochs per refill; 0: one refill for the whole run.
        rank: This process.
        world_size: How many processes there are.
        sized: Whether `epoch_rows` is exact; it is a guess for a stream.
    """

    ratio: Fraction
    batch_size: int
    epoch_rows: int
    refill_every: int = 1
    rank: int = 0
    world_size: int = 1
    sized: bool = True

    def refill(self, epoch: int) -> int:
        """The refill that an epoch draws from."""
        return epoch // self.refill_every if self.refill_every else 0

    def size(self, refill: int, rows: int) -> int:
        """Generated rows that the epochs of a refill take for a training set of `rows` rows."""
        span = max(1, self.refill_every) * rows
        return int((refill + 1) * span * self.ratio) - int(refill * span * self.ratio)

    def span(self, epoch: int, batch: int, real_rows: int) -> range:
        """Positions that this process's batch number `batch` of an epoch draws."""
        before = self._before(epoch) + (batch * self.world_size + self.rank) * self.batch_size
        start = self._start(self.refill(epoch))
        return range(
            int(before * self.ratio) - start, int((before + real_rows) * self.ratio) - start
        )

    def drawn(self, epoch: int, batches: int) -> int:
        """Positions drawn once every process has collated `batches` batches of an epoch."""
        real = self._before(epoch) + self._real_rows(batches)
        return int(real * self.ratio) - self._start(self.refill(epoch))

    def drawn_by_end(self, refill: int, epoch: int, batches: int) -> int:
        """Positions of a refill drawn by a run that ends `batches` batches into `epoch`, or later.

        Batches beyond the epoch are those of the following ones.
        """
        if self.sized:
            later, batches = divmod(batches, self._batches_per_epoch)
            epoch += later
        real = self._before(epoch) + self._real_rows(batches)
        return max(0, int(real * self.ratio) - self._start(refill))

    @property
    def _batches_per_epoch(self) -> int:
        return max(1, -(-self.epoch_rows // (self.batch_size * self.world_size)))

    def _real_rows(self, batches: int) -> int:
        """Real rows in the first `batches` batches of every process, within one epoch."""
        rows = batches * self.world_size * self.batch_size
        return min(rows, self.epoch_rows) if self.sized else rows

    def _before(self, epoch: int) -> int:
        return epoch * self.epoch_rows

    def _start(self, refill: int) -> int:
        return int(refill * max(1, self.refill_every) * self.epoch_rows * self.ratio)


@dataclass(frozen=True)
class Lookahead:
    """How far ahead of the optimizer steps a loader may ask for batches.

    The Trainer fetches the batches of a whole step at once, accelerate fetches one more, and
    data-loader workers are sent `prefetch_factor` batch numbers each beyond those.

    Args:
        accumulation: Batches per optimizer step.
        prefetched: Batches asked for beyond those of the step.
        epoch_batches: Batches of an epoch; None for a stream.
    """

    accumulation: int
    prefetched: int
    epoch_batches: int | None = None

    @classmethod
    def of(cls, loader: Any, accumulation: int) -> Lookahead:
        """For a loader that accelerate prepared."""
        base = loader.base_dataloader
        sized = not isinstance(loader.dataset, IterableDataset)
        prefetched = 1 + base.num_workers * (base.prefetch_factor or 0)
        return cls(accumulation, prefetched, len(loader) if sized else None)

    def requested(self, steps: int) -> int:
        """Batches of an epoch that may have been asked for when `steps` of its steps are done."""
        return steps * self.accumulation + self.prefetched

    def taken(self, steps: int) -> int:
        """Batches that `steps` steps take, counted from the beginning of an epoch and beyond it."""
        if self.epoch_batches is None:
            return steps * self.accumulation
        epochs, rest = divmod(steps, max(1, -(-self.epoch_batches // self.accumulation)))
        return epochs * self.epoch_batches + rest * self.accumulation


def schedule_of(
    loader: Any, *, mix_ratio: float, refill_every: int, batch_size: int, rows: int
) -> Schedule:
    """The schedule of a run over a loader that accelerate prepared.

    Args:
        loader: The train loader.
        mix_ratio: Share of generated rows among all.
        refill_every: Epochs per refill.
        batch_size: Real rows in a batch, if the loader does not know.
        rows: Real rows of an epoch, if the loader does not know.
    """
    world = runtime.world_size()
    size = batch_size_of(loader, batch_size, world)
    known = epoch_rows_of(loader, size, world)
    return Schedule(
        mixed_per_real(mix_ratio),
        batch_size=size,
        epoch_rows=rows if known is None else known,
        refill_every=refill_every,
        rank=runtime.rank(),
        world_size=world,
        sized=known is not None,
    )


def start_of(loader: Any, steps: int, max_steps: int, accumulation: int) -> tuple[int, int]:
    """Epochs and further batches behind a run that has taken `steps` steps.

    As the Trainer counts: a stream, whose length it does not know, is one epoch to it.
    """
    sized = not isinstance(loader.dataset, IterableDataset)
    epoch = max(1, -(-len(loader) // accumulation)) if sized else max_steps
    done, within = divmod(steps, epoch)
    return done, within * accumulation


def batch_size_of(loader: Any, fallback: int, world_size: int) -> int:
    """Real rows in a full batch of one process."""
    if isinstance(loader.dataset, IterableDataset):
        return int(loader.base_dataloader.batch_size or fallback)
    return int(loader.total_batch_size) // world_size


def epoch_rows_of(loader: Any, batch_size: int, world_size: int) -> int | None:
    """Real rows that all processes see in an epoch; None for a stream."""
    if isinstance(loader.dataset, IterableDataset):
        return None
    batches, full = len(loader), batch_size * world_size
    sampler = loader.batch_sampler
    evened = world_size > 1 and getattr(sampler, "even_batches", True)
    if evened or getattr(sampler, "drop_last", False):
        return batches * full
    return len(runtime.sampler_of(loader) or loader.dataset)
