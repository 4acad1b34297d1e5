"""Which training rows are mixed, and in what ratio: the pair plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from torch import Tensor

from mixup_hf import errors, registry
from mixup_hf.config import StrategyName
from mixup_hf.mixing.balance import draw_turn, lacking_rows
from mixup_hf.mixing.chunks import FIRST_CHUNK, ChunkGrid
from mixup_hf.mixing.pairings import Pairing, TrainingRows
from mixup_hf.mixing.weights import Weights
from mixup_hf.runtime import counter_rng
from mixup_hf.types import Redraw

SamplingStrategy = str | float | Mapping[int, int]

# Part of the key of each random stream, so that no two streams coincide.
_PAIRS = 0
_REDRAWS = 3


@dataclass(frozen=True)
class Pairs:
    """A run of pairs, or of groups of m parents.

    Attributes:
        index: Position of each in the plan (n,).
        parents: Rows of the parents (n, m).
        shares: Their weights (n, m); each row sums to 1.
    """

    index: np.ndarray
    parents: np.ndarray
    shares: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def at(self, places: list[int]) -> Pairs:
        """Those at some places."""
        return Pairs(self.index[places], self.parents[places], self.shares[places])

    @property
    def first(self) -> np.ndarray:
        """Rows of the first parents (n,)."""
        return self.parents[:, 0]

    @property
    def second(self) -> np.ndarray:
        """Rows of the second parents (n,)."""
        return self.parents[:, 1]

    @property
    def lams(self) -> np.ndarray:
        """Weights of the first parents (n,)."""
        return self.shares[:, 0]


class PairPlan:
    """All pairs of a run, made chunk by chunk from (seed, epoch, chunk) alone.

    A chunk is the unit that is decoded as one batch. It is the same for every batch size, worker
    count and world size, and can be made without making the chunks before it. First parents follow
    a seeded shuffle of the rows, so every row is a first parent once before any is twice; with a
    `sampling_strategy`, each class comes as often as it asks for instead.

    Args:
        labels: Class indices of the training rows (N,); real targets for `near_target`.
        pairing: Name of a registered pairing.
        weights: Distribution of the ratio; one of m parents draws m - 1 partners.
        seed: Seed of the run.
        chunk_size: Pairs per chunk, after a ramp of smaller ones.
        first_chunk: Pairs in the first chunk; each following one is twice as large, up to
            `chunk_size`.
        num_neighbors: k, for pairings that choose among neighbors.
        embeddings: Gives the rows' embeddings (N, D), for pairings that need them.
        sampling_strategy: How many rows to generate per class, as in imbalanced-learn:
            "auto" ("not majority"), "minority", "not minority", "all", a ratio for two classes, or
            the target count of each class.
        balance: Share of generated rows among all those a model sees. Above 0, and without a
            `sampling_strategy`, first parents make up for what the rarer classes lack.
        first: As for `TrainingRows`.

    Raises:
        InvalidInput: Unknown pairing, too few rows or classes, or a strategy that asks for fewer
            rows of a class than it has, or for none at all.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        pairing: str,
        weights: Weights,
        seed: int,
        chunk_size: int = 256,
        first_chunk: int = FIRST_CHUNK,
        num_neighbors: int = 5,
        embeddings: Callable[[], Tensor] | None = None,
        sampling_strategy: SamplingStrategy | None = None,
        balance: float = 0.0,
        first: np.ndarray | None = None,
    ) -> None:
        self._kind: type[Pairing] = registry.get("pairing", pairing)
        errors.at_least("chunk_size", chunk_size, 1)
        errors.at_least("first_chunk", first_chunk, 1)
        self._rows = TrainingRows(
            labels, embeddings=embeddings, num_neighbors=num_neighbors, first=first
        )
        if self._kind.needs_embeddings and not self._rows.has_embeddings:
            raise errors.InvalidInput(
                f"`pairing` = {pairing!r} needs `embeddings` to find neighbors."
            )
        self.labels = self._rows.labels
        self.pairing = pairing
        self.weights = weights
        self.seed = seed
        self.chunks = ChunkGrid(chunk_size, first_chunk)
        self.wanted = _wanted(sampling_strategy or self._kind.sampling_strategy, self.labels)
        if self.wanted is None and balance > 0:
            self.wanted = lacking_rows(self.labels, balance)
        self._near: Pairing | None = None
        self._latest_turn: tuple[int, int, np.ndarray] | None = None
        self._partners = self._kind(self._rows)

    def forget(self) -> None:
        """Search for neighbors again, because the rows' embeddings have changed."""
        self._near = None
        self._partners = self._kind(self._rows)

    @property
    def rows_per_turn(self) -> int:
        """First parents in one pass over the rows: N, or what the strategy asks for."""
        return len(self.labels) if self.wanted is None else sum(self.wanted.values())

    def num_chunks(self, num_pairs: int) -> int:
        """Chunks that hold `num_pairs` pairs; the last one may be shorter."""
        return self.chunks.count(num_pairs)

    def chunk_of(self, index: int) -> int:
        """The chunk that holds position `index`."""
        return self.chunks.chunk_of(index)

    def chunk(self, epoch: int, chunk: int, num_pairs: int) -> Pairs:
        """The pairs of one chunk of an epoch of `num_pairs` pairs.

        Only the last chunk depends on `num_pairs`, which cuts it short.
        """
        index = np.arange(self.chunks.start(chunk), min(self.chunks.start(chunk + 1), num_pairs))
        rng = counter_rng(self.seed, _PAIRS, epoch, 1, chunk)
        return self.pairs(index, self._first_parents(epoch, index), rng)

    def redraw(self, pairs: Pairs, epoch: int, chunk: int, attempt: int, how: Redraw) -> Pairs:
        """Other pairs for the same places of a chunk, with the same first parents.

        Args:
            pairs: Those to replace.
            epoch: Theirs.
            chunk: Theirs.
            attempt: 1, 2, ...: each gives others.
            how: `pair`: another partner and ratio. `ratio`: the same parents. `near`: a partner
                among the nearest rows, of another class if there is one.
        """
        rng = counter_rng(self.seed, _REDRAWS, epoch, chunk, attempt)
        if how == "ratio":
            return Pairs(pairs.index, pairs.parents, self._shares(len(pairs), rng))
        if how == "pair":
            return self.pairs(pairs.index, pairs.first, rng)
        if self._near is None:
            if not self._rows.has_embeddings:
                raise errors.InvalidInput(
                    "`intrusion` = 'local' needs `embeddings` to find neighbors."
                )
            self._near = registry.get("pairing", "local")(self._rows)
        return self.pairs(pairs.index, pairs.first, rng, self._near)

    def pairs(
        self,
        index: np.ndarray,
        first: np.ndarray,
        rng: np.random.Generator,
        partners: Pairing | None = None,
    ) -> Pairs:
        """Partners and weights for given first parents (n,)."""
        drawn = partners or self._partners
        others = range(self.weights.num_parents - 1)
        parents = np.stack([first, *(drawn.draw(first, rng) for _ in others)], axis=1)
        return Pairs(index, parents, self._shares(len(first), rng))

    def _shares(self, count: int, rng: np.random.Generator) -> np.ndarray:
        drawn = self.weights.sample(count, rng)
        return np.stack([drawn, 1 - drawn], axis=1) if drawn.ndim == 1 else drawn

    def _first_parents(self, epoch: int, index: np.ndarray) -> np.ndarray:
        count = self.rows_per_turn
        turns = range(index[0] // count, index[-1] // count + 1)
        rows = np.concatenate([self._known_turn(epoch, int(turn)) for turn in turns])
        first_turn = index[0] // count * count
        parents: np.ndarray = rows[index - first_turn]
        return parents

    def _known_turn(self, epoch: int, turn: int) -> np.ndarray:
        """A turn, kept for the chunks that follow: made for each, N rows would cost N squared."""
        found = self._latest_turn
        if found is None or found[:2] != (epoch, turn):
            rows = self._turn(counter_rng(self.seed, _PAIRS, epoch, 0, turn))
            self._latest_turn = found = epoch, turn, rows
        return found[2]

    def _turn(self, rng: np.random.Generator) -> np.ndarray:
        if self.wanted is None:
            return rng.permutation(len(self.labels))
        members = {label: self._rows.classes.members(label) for label in self.wanted}
        return draw_turn(self.wanted, members, rng)


def _wanted(strategy: SamplingStrategy | None, labels: np.ndarray) -> dict[int, int] | None:
    """Rows to generate per class, without the classes that need none; None without a strategy."""
    if strategy is None:
        return None
    errors.optional("imblearn", "imbalance", "`sampling_strategy`")
    from imblearn.utils import check_sampling_strategy

    way_out = (
        "Give 'auto', 'minority', 'not minority', 'not majority', 'all', a ratio for two classes, "
        "or the target number of rows of each class."
    )
    if isinstance(strategy, str):
        errors.one_of("sampling_strategy", strategy, get_args(StrategyName))
    if isinstance(strategy, Mapping):
        strategy = dict(strategy)
    try:
        counts = check_sampling_strategy(strategy, labels, "over-sampling")
    except ValueError as error:
        raise errors.InvalidInput(
            f"`sampling_strategy` = {strategy!r}: {error} {way_out}"
        ) from error
    wanted = {int(label): int(count) for label, count in counts.items() if count > 0}
    if not wanted:
        raise errors.InvalidInput(
            f"`sampling_strategy` = {strategy!r} asks for no rows: every class already has "
            "as many. Leave it out, or give larger counts."
        )
    return wanted
