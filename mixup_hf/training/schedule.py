"""Which generated rows a batch gets, as arithmetic: no random numbers, nothing to save or restore.

With `mix_ratio` r, x real rows are joined by floor(x * r / (1 - r)) generated ones, counted from
the beginning of training over all processes. So the batch with real rows x..x+n takes the generated
rows from floor(x * rho) to floor((x + n) * rho), with rho = r / (1 - r). The ratio holds on average
for any batch size, every row is used before one is used twice, and all that a batch needs to know
is its number. A curriculum leaves some of these rows out, counted in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from torch.utils.data import IterableDataset

from mixup_hf import runtime
from mixup_hf.training.curricula import Curriculum
from mixup_hf.training.curriculum import Course

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
        course: A curriculum over this run. Default: constant, nothing is left out.
    """

    ratio: Fraction
    batch_size: int
    epoch_rows: int
    refill_every: int = 1
    rank: int = 0
    world_size: int = 1
    sized: bool = True
    course: Course | None = None

    @property
    def settings(self) -> dict[str, str]:
        """What a resumed run must have in common: with a curriculum, the length of the run."""
        return {} if self.course is None else {"run_epochs": str(self.course.epochs)}

    def refill(self, epoch: int) -> int:
        """The refill that an epoch draws from."""
        return epoch // self.refill_every if self.refill_every else 0

    def size(self, refill: int, rows: int) -> int:
        """Generated rows that the epochs of a refill take for a training set of `rows` rows.

        A curriculum knows the end of the run, and asks for no rows beyond it. Where one refill
        serves the whole run, it holds the rows of one epoch, or fewer if the run takes fewer.
        """
        span = max(1, self.refill_every) * rows
        ends = [int(each * span * self.ratio) for each in (refill, refill + 1)]
        if self.course is None:
            return ends[1] - ends[0]
        mixing = self.course.epochs - self.course.warmup
        if self.refill_every and self.sized:
            whole, per_epoch = int(mixing * rows * self.ratio), rows * self.ratio
            first, last = (self.course.generated(min(end, whole), per_epoch) for end in ends)
            return last - first
        left = self._generated(mixing * self.epoch_rows) - self.drawn_before(refill)
        return max(0, min(ends[1] - ends[0], left))

    def drawn_before(self, refill: int) -> int:
        """Positions of all earlier refills."""
        return self._generated(refill * max(1, self.refill_every) * self.epoch_rows)

    def span(self, epoch: int, batch: int, real_rows: int) -> range:
        """Positions that this process's batch number `batch` of an epoch draws."""
        before = self._before_batch(epoch, batch)
        start = self.drawn_before(self.refill(epoch))
        return range(self._generated(before) - start, self._generated(before + real_rows) - start)

    def left_out(self, epoch: int, batch: int, real_rows: int) -> range:
        """Which of the rows that the curriculum leaves out would be in this process's batch.

        They are counted from the beginning of the run.
        """
        before = self._before_batch(epoch, batch)
        first, last = (
            int(rows * self.ratio) - self._generated(rows) for rows in (before, before + real_rows)
        )
        return range(first, last)

    def drawn(self, epoch: int, batches: int) -> int:
        """Positions drawn once every process has collated `batches` batches of an epoch."""
        real = self._before(epoch) + self._real_rows(batches)
        return self._generated(real) - self.drawn_before(self.refill(epoch))

    def drawn_by_end(self, refill: int, epoch: int, batches: int) -> int:
        """Positions of a refill drawn by a run that ends `batches` batches into `epoch`, or later.

        Batches beyond the epoch are those of the following ones.
        """
        return max(
            0, self._generated(self._real_by_end(epoch, batches)) - self.drawn_before(refill)
        )

    def over(self, curriculum: Curriculum | None, batches: int, warmup: int) -> Schedule:
        """This schedule with a curriculum, in a run of `batches` batches a process.

        Args:
            curriculum: Which part of the rows is used at each point of the run; None for all.
            batches: Of the whole run.
            warmup: Epochs of the run before the first one that mixes.
        """
        if curriculum is None:
            return self
        epochs = Fraction(self._real_by_end(0, batches), self.epoch_rows)
        return replace(self, course=Course(curriculum, epochs, warmup))

    @property
    def _batches_per_epoch(self) -> int:
        return max(1, -(-self.epoch_rows // (self.batch_size * self.world_size)))

    def _real_rows(self, batches: int) -> int:
        """Real rows in the first `batches` batches of every process, within one epoch."""
        rows = batches * self.world_size * self.batch_size
        return min(rows, self.epoch_rows) if self.sized else rows

    def _real_by_end(self, epoch: int, batches: int) -> int:
        """Real rows of a run that ends `batches` batches into `epoch`, or later."""
        if self.sized:
            later, batches = divmod(batches, self._batches_per_epoch)
            epoch += later
        return self._before(epoch) + self._real_rows(batches)

    def _generated(self, real_rows: int | Fraction) -> int:
        """Generated rows that join the first real rows."""
        places = int(real_rows * self.ratio)
        if self.course is None:
            return places
        return self.course.generated(places, self.epoch_rows * self.ratio)

    def _before(self, epoch: int) -> int:
        return epoch * self.epoch_rows

    def _before_batch(self, epoch: int, batch: int) -> int:
        """Real rows before this process's batch number `batch` of an epoch."""
        return self._before(epoch) + (batch * self.world_size + self.rank) * self.batch_size


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
