"""Where a refill's rows come from, in pieces: a producer that decodes, or rows at hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from mixup_hf import errors, runtime
from mixup_hf.generation.background import BackgroundProducer, Chunk
from mixup_hf.generation.generator import Producer
from mixup_hf.generation.replay import RecordedRows
from mixup_hf.types import MixedExample, Supplies

Rows = list[MixedExample]
OnChunk = Callable[[int], object]


class RowPieces(Protocol):
    """Rows of a refill in pieces; a piece is what is decoded, gathered and published at once."""

    def size(self, refill: int, wanted: int, before: int | None) -> int:
        """Rows that a refill has when `wanted` are asked for, and `before` by earlier refills.

        None: by each of them as many.
        """
        ...

    def stop(self, needed: int, size: int) -> int:
        """Rows that have been made once row `needed - 1` has: whole chunks are decoded."""
        ...

    def piece(self, position: int, needed: int, size: int) -> range:
        """Chunks of the next piece, which begins at `position`; rows up to `needed` are used."""
        ...

    def make(self, refill: int, chunks: range, size: int, on_chunk: OnChunk) -> Rows:
        """The rows of a piece, on every process."""
        ...


class DecodedPieces:
    """Rows of a `Producer`: every process decodes one chunk of a piece."""

    def __init__(self, producer: Producer, background: BackgroundProducer | None) -> None:
        self.producer = producer
        self.background = background

    def size(self, refill: int, wanted: int, before: int | None) -> int:
        """All that are wanted."""
        return wanted

    def stop(self, needed: int, size: int) -> int:
        """The end of the chunk that holds row `needed - 1`."""
        plan = self.producer.plan
        return min(plan.chunks.start(plan.chunk_of(needed - 1) + 1), size)

    def piece(self, position: int, needed: int, size: int) -> range:
        """One chunk for every process, or as many as are needed."""
        first = self.producer.plan.chunk_of(position)
        last = self.producer.plan.chunk_of(min(needed, size) - 1)
        return range(first, min(first + runtime.world_size(), last + 1))

    def make(self, refill: int, chunks: range, size: int, on_chunk: OnChunk) -> Rows:
        """Decode this process's share, and gather those of all."""
        if self.background is None:
            return self.producer.make(refill, chunks, size, on_chunk)
        mine: dict[int, Rows] = {}
        for number in self.producer.share(chunks):
            mine[number] = self.background.take(Chunk(refill, number, size))
            on_chunk(len(mine[number]))
        return self.producer.gather(mine)


class StoredPieces:
    """Rows that were made before: one piece per refill."""

    def __init__(self, producer: Supplies) -> None:
        self.producer = producer
        self._rows: tuple[int, Rows] = (-1, [])

    def size(self, refill: int, wanted: int, before: int | None) -> int:
        """As many as are wanted, or as there are."""
        if self._rows[0] != refill:
            self._rows = (refill, self._taken(refill, wanted, before) if wanted else [])
        return len(self._rows[1])

    def stop(self, needed: int, size: int) -> int:
        """All rows."""
        return size

    def piece(self, position: int, needed: int, size: int) -> range:
        """The whole refill."""
        return range(1)

    def make(self, refill: int, chunks: range, size: int, on_chunk: OnChunk) -> Rows:
        """The rows of the refill."""
        on_chunk(size)
        return self._rows[1]

    def _taken(self, refill: int, wanted: int, before: int | None) -> Rows:
        if isinstance(self.producer, RecordedRows):
            return self.producer.produce(refill, wanted, before=before)
        return self.producer.produce(refill, wanted)


def background_of(producer: Supplies) -> BackgroundProducer:
    """A thread for `producer`, which has to be one that decodes."""
    if not isinstance(producer, Producer):
        raise errors.bad("background", "be false where rows are read from a file", True)
    return BackgroundProducer(producer)


def pieces_of(producer: Supplies, background: BackgroundProducer | None) -> RowPieces:
    """The pieces that `producer` can hand out."""
    if isinstance(producer, Producer):
        return DecodedPieces(producer, background)
    return StoredPieces(producer)


def generating_bar(total: int) -> AbstractContextManager[Any]:
    """A progress bar of the main process over `total` rows, redrawn while a chunk is decoded."""
    silent = not runtime.is_main_process()
    return runtime.progress_bar(total, "generating sentences", delay=1, leave=False, disable=silent)
