"""How a pair plan is cut into chunks, each decoded as one batch."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

FIRST_CHUNK = 8


class ChunkGrid:
    """Chunk sizes that double from `first` up to `largest`: 8, 16, 32, ..., 256, 256, ...

    Small chunks come first so that training starts after seconds, large ones follow because they
    decode faster per row. The boundaries depend on these two numbers alone, never on which rows
    are needed when.

    Args:
        largest: Size of every chunk after the ramp.
        first: Size of the first chunk; at most `largest`.
    """

    def __init__(self, largest: int, first: int = FIRST_CHUNK) -> None:
        sizes = [min(first, largest)]
        while sizes[-1] < largest:
            sizes.append(min(2 * sizes[-1], largest))
        self.largest = largest
        self._stops = list(accumulate(sizes))

    def chunk_of(self, index: int) -> int:
        """The chunk that holds position `index` of the plan."""
        ramp = len(self._stops)
        if index < self._stops[-1]:
            return bisect_right(self._stops, index)
        return ramp + (index - self._stops[-1]) // self.largest

    def start(self, chunk: int) -> int:
        """The first position in `chunk`."""
        ramp = len(self._stops)
        if chunk <= ramp:
            return self._stops[chunk - 1] if chunk else 0
        return self._stops[-1] + (chunk - ramp) * self.largest

    def count(self, num_pairs: int) -> int:
        """How many chunks hold `num_pairs` pairs; the last one may be shorter than its place."""
        return self.chunk_of(num_pairs - 1) + 1 if num_pairs > 0 else 0
