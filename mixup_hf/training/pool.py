"""The pool: generated rows on disk that every process and every data-loader worker reads."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mixup_hf import errors, runtime
from mixup_hf.data.rows import has_rows, open_rows, save_rows
from mixup_hf.runtime import counter_rng
from mixup_hf.types import MixedExample

# First key of a stream of random numbers: no two purposes share a stream.
_DRAWING = 2
_NOTHING = -1
NEVER = 2**62


class PoolState(NamedTuple):
    """What a process or worker must know to collate a batch.

    Attributes:
        serial: Changes at the beginning of each epoch, so that batches are counted anew.
        epoch: Epoch, counted from the first one that mixes; -1 before it.
        first_batch: Number of the first batch collated; later than 0 after a resume.
        stop_batch: From this batch of the epoch on, nothing is mixed.
        refill: What is drawn from; -1 before the first.
        size: Rows of the refill, made or not.
        published: How many of them can be read.
    """

    serial: int = 0
    epoch: int = _NOTHING
    first_batch: int = 0
    stop_batch: int = 0
    refill: int = _NOTHING
    size: int = 0
    published: int = 0


class MixupPool:
    """The generated rows of a refill, published piece by piece.

    Each piece is one memory-mapped segment on disk. What can be read stands in a tensor in shared
    memory, so forked, spawned and persistent workers all see a piece that was published before they
    were asked for a batch. A refill is read in its own order; once all its rows have been used they
    are used again, in an order drawn from the seed.

    Args:
        folder: Where the segments go.
        seed: Seed of the order in which rows are used again.
    """

    def __init__(self, folder: str | Path, seed: int) -> None:
        self.folder = Path(folder)
        self.seed = seed
        self._shared = torch.tensor(PoolState(), dtype=torch.int64).share_memory_()
        self._segments = _Segments(_NOTHING)

    @property
    def state(self) -> PoolState:
        """What is drawn from now."""
        return PoolState(*self._shared.tolist())

    @property
    def refill(self) -> int:
        """The refill that is drawn from; -1 before the first."""
        return self.state.refill

    def __len__(self) -> int:
        return self.state.published

    def begin_epoch(self, epoch: int, refill: int, size: int, first_batch: int = 0) -> None:
        """Draw from `refill`, of `size` rows, for the batches of an epoch from `first_batch` on."""
        now = self.state
        published = now.published
        if now.refill != refill:  # nodes without a shared disk may differ in what they have
            published = runtime.smallest(self.count_on_disk(refill, size))
        self._set(PoolState(now.serial + 1, epoch, first_batch, NEVER, refill, size, published))

    def stop(self, batch: int = 0) -> None:
        """Mix nothing from this batch of the epoch on; `begin_epoch` mixes again."""
        self._set(self.state._replace(stop_batch=batch))

    def append(self, rows: Sequence[MixedExample]) -> None:
        """Publish the refill's next rows; every process calls this, with the same rows."""
        now = self.state
        if now.refill == _NOTHING:
            raise errors.InvalidState(
                "The pool draws from no refill yet: call `begin_epoch` first."
            )
        if not rows:
            raise errors.bad("rows", "hold at least one mixed row", rows)
        stop = now.published + len(rows)
        if runtime.is_local_main_process():
            save_rows(self.path(now.refill) / f"{now.published:08d}-{stop:08d}", rows)
        runtime.wait_for_everyone()
        self._set(now._replace(published=stop))

    def draw(self, positions: range) -> list[tuple[int, MixedExample]]:
        """The rows at these positions of the refill, with their index in it.

        Positions beyond the last row begin again at the first, in another order each time.

        Raises:
            InvalidState: A row has not been published yet.
        """
        now = self.state
        if now.refill == _NOTHING:
            raise errors.InvalidState("The pool is empty: nothing has been published yet.")
        if now.size == 0:
            return []
        indices = [self._index(now, position) for position in positions]
        missing = [index for index in indices if index >= now.published]
        if missing:
            raise errors.InvalidState(
                f"A batch of epoch {now.epoch} needs row {max(missing)} of refill {now.refill}, "
                f"but only {now.published} of {now.size} have been made: the loader runs further "
                "ahead than the callback expects. Please report this with your TrainingArguments; "
                "until it is mended, TrainingArguments(dataloader_num_workers=0) avoids it."
            )
        rows = self._read(now.refill, now.published)
        return [(index, rows[index]) for index in indices]

    def rows(self, refill: int | None = None) -> Sequence[MixedExample]:
        """The rows of a refill that were made so far; default: the one that is drawn from."""
        chosen = self.refill if refill is None else refill
        return self._read(chosen, self.count_on_disk(chosen))

    def path(self, refill: int) -> Path:
        """The folder of a refill's segments."""
        return self.folder / f"refill-{refill:05d}"

    def count_on_disk(self, refill: int, most: int = NEVER) -> int:
        """Rows of a refill, from its first one on, that this process can read."""
        count = 0
        for start, stop in _segment_names(self.path(refill)):
            if start != count or stop > most:
                break
            count = stop
        return count

    def _index(self, now: PoolState, position: int) -> int:
        turn, place = divmod(position, now.size)
        return int(_order(self.seed, now.refill, turn, now.size)[place]) if turn else place

    def _read(self, refill: int, count: int) -> _Segments:
        if self._segments.refill != refill:
            self._segments = _Segments(refill)
        if len(self._segments) < count:
            self._segments.open(self.path(refill))
        return self._segments

    def _set(self, state: PoolState) -> None:
        self._shared.copy_(torch.tensor(state, dtype=torch.int64))

    def __getstate__(self) -> dict[str, Any]:
        """Workers get the handle, not the rows; they map the segments themselves."""
        return self.__dict__ | {"_segments": _Segments(_NOTHING)}


class _Segments(Sequence[MixedExample]):
    """The rows of one refill, whichever segment each lies in."""

    def __init__(self, refill: int) -> None:
        self.refill = refill
        self._parts: list[Sequence[MixedExample]] = []
        self._stops: list[int] = []

    def open(self, folder: Path) -> None:
        """Map the segments that have come since."""
        for start, stop in _segment_names(folder):
            if start == len(self):
                self._parts.append(open_rows(folder / f"{start:08d}-{stop:08d}"))
                self._stops.append(stop)

    def __len__(self) -> int:
        return self._stops[-1] if self._stops else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._stops, index)
        return self._parts[part][index - (self._stops[part - 1] if part else 0)]


@lru_cache(maxsize=4)
def _order(seed: int, refill: int, turn: int, size: int) -> np.ndarray:
    return counter_rng(seed, _DRAWING, refill, turn).permutation(size)


def _segment_names(folder: Path) -> list[tuple[int, int]]:
    """First and past-the-end row of every segment there, in order."""
    if not folder.is_dir():
        return []
    names = [path.name.split("-") for path in folder.iterdir() if has_rows(path)]
    return sorted((int(start), int(stop)) for start, stop in names)
