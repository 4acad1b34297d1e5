"""Unlabelled texts as parents of mixes, in the place of training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.mixing.interpolation import mix_targets
from mixup_hf.mixing.neighbors import NOBODY, Neighbors
from mixup_hf.mixing.pairing import Pairs
from mixup_hf.mixing.pairings import one_of
from mixup_hf.runtime import counter_rng
from mixup_hf.types import Encodes, Redraw

_PARENTS = 17  # names the stream of random numbers; part of its key


class UnlabeledParents:
    """Puts unlabelled texts in the place of a share of the parents of a plan.

    Each parent is an unlabelled text with probability `share`, so at 0.5 a quarter of the pairs
    has two of them and half of the pairs one. Nobody knows the class of such a text: it is mixed
    with one of the texts nearest to it, whatever the pairing, since those most likely share it.
    What a position holds is a function of (seed, epoch, chunk, attempt).

    Among N training rows, M unlabelled texts are numbered N to N + M - 1.

    Args:
        texts: The texts (M), at least two.
        share: Share of the parents, in (0, 1].
        seed: Seed of the run.
        num_neighbors: How many near texts a partner is drawn from.
    """

    def __init__(
        self, texts: Sequence[str], share: float, *, seed: int, num_neighbors: int
    ) -> None:
        errors.positive("unlabeled_parents", share)
        errors.in_range("unlabeled_parents", share, 0.0, 1.0)
        way_out = "Give more, or set `unlabeled_parents` to 0."
        errors.at_least("number of unlabelled texts", len(texts), 2, way_out)
        errors.at_least("num_neighbors", num_neighbors, 1)
        self.texts = list(texts)
        self.share, self.seed, self.num_neighbors = share, seed, num_neighbors
        self.forget()

    def forget(self) -> None:
        """Embed the texts again before they are mixed: the encoder has changed."""
        self._every: Tensor | None = None
        self._searches: tuple[Neighbors, Neighbors] | None = None

    def append(self, labeled: Tensor, encoder: Encodes) -> Tensor:
        """Embeddings of all texts (N + M, D): those of the training rows (N, D) come first."""
        if self._every is None:
            self._every = torch.cat([labeled, encoder.encode(self.texts)])
        return self._every

    def place(
        self,
        pairs: Pairs,
        key: Sequence[int],
        every: Tensor,
        before: Pairs | None = None,
        how: Redraw = "pair",
    ) -> Pairs:
        """The pairs with unlabelled texts among their parents.

        Args:
            pairs: Pairs of training rows (n).
            key: What the draw depends on beside the seed: epoch, chunk and attempt.
            every: Embeddings of all texts (N + M, D), as `append` returns them.
            before: What this method returned for these places before they were drawn again: their
                first parents stay.
            how: How `PairPlan.redraw` has drawn them again; with `ratio`, all parents stay.
        """
        if before is not None and how == "ratio":
            return Pairs(pairs.index, before.parents, pairs.shares)
        rng = counter_rng(self.seed, _PARENTS, *key)
        taken = rng.random(pairs.parents.shape) < self.share
        drawn = len(every) - len(self.texts) + rng.integers(len(self.texts), size=len(pairs))
        parents = pairs.parents.copy()
        first = np.where(taken[:, 0], drawn, pairs.first)
        parents[:, 0] = first if before is None else before.first
        for column in range(1, parents.shape[1]):
            parents[:, column] = self._partners(
                parents[:, 0], parents[:, column], taken[:, column], every, rng
            )
        return Pairs(pairs.index, parents, pairs.shares)

    def _partners(
        self,
        first: np.ndarray,
        planned: np.ndarray,
        taken: np.ndarray,
        every: Tensor,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Partners (n,): those planned, where neither side is an unlabelled text."""
        rows = len(every) - len(self.texts)
        if self._searches is None:
            self._searches = Neighbors(every[:rows]), Neighbors(every[rows:])
        near = np.full((len(first), self.num_neighbors + 1), NOBODY)
        near[:, 0] = planned
        unlabeled = taken | (first >= rows)
        for search, start, asked in (
            (self._searches[0], 0, unlabeled & ~taken),
            (self._searches[1], rows, taken),
        ):
            if not asked.any():
                continue
            queries = every[torch.from_numpy(first[asked])]
            found = search.search(queries, near.shape[1])
            found = np.where(found == NOBODY, NOBODY, found + start)
            found[found == first[asked, None]] = NOBODY  # a text is not its own partner
            near[asked] = _at_most(found, self.num_neighbors)
        return one_of(near, planned, rng)


def known_labels(
    targets: Tensor, parents: Tensor, shares: Tensor, *, bounded: bool
) -> list[tuple[float, ...]]:
    """Labels of n mixes by their parents' weights; empty where a parent has no label.

    Args:
        targets: Labels (N, C) of the training texts.
        parents: Rows of the parents (n, m); from N on they have no label.
        shares: Their weights (n, m).
        bounded: As for `mix_targets`.
    """
    known = (parents < len(targets)).all(1)
    mixed = iter(mix_targets(targets[parents[known]], shares[known], bounded=bounded).tolist())
    return [tuple(next(mixed)) if each else () for each in known.tolist()]


def parents_of(pairs: Pairs, row: int, count: int) -> dict[str, Any]:
    """How a row records its parents: labelled ones first, with their shares in the same order.

    Args:
        pairs: The pairs of a chunk.
        row: Which of them.
        count: Training rows (N); a parent of a larger number is an unlabelled text.
    """
    parents, shares = pairs.parents[row], pairs.shares[row]
    order = np.argsort(parents >= count, kind="stable")
    parents, shares = parents[order], shares[order]
    return {
        "lam": float(shares[0]),
        "parents": tuple(parents[parents < count].tolist()),
        "shares": tuple(shares.tolist()),
        "unlabeled_parents": tuple((parents[parents >= count] - count).tolist()),
    }


def _at_most(near: np.ndarray, count: int) -> np.ndarray:
    """The first `count` known entries of each line of `near` (n, k); -1 for the others."""
    known = near != NOBODY
    return np.where(known & (known.cumsum(axis=1) <= count), near, NOBODY)
