"""Which two training rows are mixed, and in what ratio: the pair plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from mixup_hf import _checks
from mixup_hf.distributed import counter_rng
from mixup_hf.weights import Weights

Pairing = Literal["random", "same_class", "cross_class"]
PAIRINGS: tuple[str, ...] = get_args(Pairing)

# What a stream of random numbers is for; part of its key, so that streams never meet.
_PAIRS = 0


@dataclass(frozen=True)
class Pairs:
    """A run of pairs.

    Attributes:
        index: Position of each pair in the plan (n,).
        first, second: Rows of the parents (n,).
        lams: Weight of the first parent (n,).
    """

    index: np.ndarray
    first: np.ndarray
    second: np.ndarray
    lams: np.ndarray

    def __len__(self) -> int:
        return len(self.index)


class PairPlan:
    """All pairs of a run, made chunk by chunk from (seed, epoch, chunk) alone.

    A chunk is the unit that is decoded as one batch. It is the same for every batch size, worker
    count and world size, and can be made without making the chunks before it. First parents follow
    a seeded shuffle of the rows, so every row is a first parent before any is one twice.

    Args:
        labels: Class indices of the training rows (N,).
        pairing: `random`: any other row. `same_class`: another row of the class. `cross_class`: a
            row of another class.
        weights: Distribution of the ratio.
        seed: Seed of the run.
        chunk_size: Pairs per chunk.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        pairing: str,
        weights: Weights,
        seed: int,
        chunk_size: int = 256,
    ) -> None:
        _checks.one_of("pairing", pairing, PAIRINGS)
        _checks.at_least("chunk_size", chunk_size, 1)
        self.labels = np.asarray(labels)
        self.pairing = pairing
        self.weights = weights
        self.seed = seed
        self.chunk_size = chunk_size
        self._members = {int(c): np.flatnonzero(self.labels == c) for c in np.unique(self.labels)}
        if len(self.labels) < 2:
            raise _checks.bad("labels", "hold at least two rows", len(self.labels))
        if pairing == "cross_class" and len(self._members) < 2:
            raise ValueError("`pairing` = 'cross_class' needs at least two classes, but got one.")

    def num_chunks(self, num_pairs: int) -> int:
        """Chunks that hold `num_pairs` pairs; the last one may be shorter."""
        return -(-num_pairs // self.chunk_size)

    def chunk(self, epoch: int, chunk: int, num_pairs: int) -> Pairs:
        """The pairs of one chunk of an epoch of `num_pairs` pairs."""
        start = chunk * self.chunk_size
        size = min(self.chunk_size, num_pairs - start)
        index = np.arange(start, start + size)
        first = self._first_parents(epoch, index)
        rng = counter_rng(self.seed, _PAIRS, epoch, 1, chunk)
        second = np.array([self._partner(row, rng) for row in first])
        return Pairs(index, first, second, self.weights.sample(size, rng))

    def _first_parents(self, epoch: int, index: np.ndarray) -> np.ndarray:
        count = len(self.labels)
        shuffled = [
            counter_rng(self.seed, _PAIRS, epoch, 0, int(turn)).permutation(count)
            for turn in range(index[0] // count, index[-1] // count + 1)
        ]
        first_turn = index[0] // count * count
        parents: np.ndarray = np.concatenate(shuffled)[index - first_turn]
        return parents

    def _partner(self, row: int, rng: np.random.Generator) -> int:
        """Another row; the row itself only when its class has no other (`same_class`)."""
        if self.pairing == "cross_class":
            own = self._members[int(self.labels[row])]
            return _draw_outside(rng, len(self.labels), own)
        if self.pairing == "random":
            at = int(rng.integers(len(self.labels) - 1))
            return at + (at >= row)
        members = self._members[int(self.labels[row])]
        return int(row) if len(members) == 1 else _draw_other(rng, members, row)


def _draw_other(rng: np.random.Generator, pool: np.ndarray, row: int) -> int:
    """One of the sorted `pool` that is not `row`, each equally likely."""
    at = int(rng.integers(len(pool) - 1))
    return int(pool[at + (at >= np.searchsorted(pool, row))])


def _draw_outside(rng: np.random.Generator, count: int, own: np.ndarray) -> int:
    """One of 0..count-1 that is not in the sorted `own`, each equally likely."""
    at = int(rng.integers(count - len(own)))
    # own[k] - k counts the outsiders below own[k]: skip every own row that lies before the target.
    return at + int(np.searchsorted(own - np.arange(len(own)), at, side="right"))
