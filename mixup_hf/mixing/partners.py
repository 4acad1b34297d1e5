"""Who a row is mixed with: one way of choosing partners each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from torch import Tensor

from mixup_hf import errors
from mixup_hf.mixing.neighbors import NOBODY, Neighbours


class Partners(Protocol):
    """Draws partners for rows."""

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        ...


class Classes:
    """The rows of a training set in the order of their classes.

    Args:
        labels: Class indices (N,); any integers that tell groups apart.
    """

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = np.asarray(labels)
        self.order = np.argsort(self.labels, kind="stable")
        classes, starts, sizes = np.unique(
            self.labels[self.order], return_index=True, return_counts=True
        )
        at = np.searchsorted(classes, self.labels)
        self.count = len(classes)
        self.start, self.size = starts[at], sizes[at]  # of each row's class, (N,)
        self.place = np.empty(len(self.labels), np.int64)  # of each row within its class
        self.place[self.order] = np.arange(len(self.labels)) - self.start[self.order]

    def __len__(self) -> int:
        return len(self.labels)

    def members(self, label: int) -> np.ndarray:
        """The rows of a class, ascending."""
        return np.flatnonzero(self.labels == label)


class RandomPartners:
    """Any other row, each equally likely."""

    def __init__(self, classes: Classes) -> None:
        self.classes = classes

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        at = rng.integers(len(self.classes) - 1, size=len(rows))
        return at + (at >= rows)


class SameClassPartners:
    """Another row of the class; the row itself where its class has no other."""

    def __init__(self, classes: Classes) -> None:
        self.classes = classes

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        size, place = self.classes.size[rows], self.classes.place[rows]
        at = rng.integers(np.maximum(size - 1, 1))
        at = np.where(size == 1, 0, at + (at >= place))
        partners: np.ndarray = self.classes.order[self.classes.start[rows] + at]
        return partners


class CrossClassPartners:
    """A row of another class, each equally likely.

    Raises:
        ValueError: There is one class only.
    """

    def __init__(self, classes: Classes) -> None:
        if classes.count < 2:
            raise errors.InvalidInput(
                "`pairing` = 'cross_class' needs at least two classes, but got one."
            )
        self.classes = classes

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        start, size = self.classes.start[rows], self.classes.size[rows]
        at = rng.integers(len(self.classes) - size)
        partners: np.ndarray = self.classes.order[at + size * (at >= start)]
        return partners


class SmotePartners:
    """One of the k nearest rows of the class (SMOTE; SMOTExT, arXiv 2505.13434).

    A class of fewer than k + 1 rows offers all its others; one of a single row, that row.

    Args:
        classes: The rows.
        embeddings: Gives their embeddings (N, D), when neighbours are first asked for.
        num_neighbors: k.
    """

    def __init__(
        self, classes: Classes, embeddings: Callable[[], Tensor], num_neighbors: int
    ) -> None:
        self.classes, self.embeddings, self.num_neighbors = classes, embeddings, num_neighbors
        self._searches: dict[int, tuple[np.ndarray, Neighbours]] = {}

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        near = np.full((len(rows), self.num_neighbors), NOBODY)
        labels = self.classes.labels[rows]
        for label in np.unique(labels):
            here = labels == label
            members, search = self._search(int(label))
            found = search.nearest(self.classes.place[rows[here]], self.num_neighbors)
            near[here] = np.where(found == NOBODY, NOBODY, members[found])
        return _one_of(near, rows, rng)

    def _search(self, label: int) -> tuple[np.ndarray, Neighbours]:
        if label not in self._searches:
            members = self.classes.members(label)
            self._searches[label] = (members, Neighbours(self.embeddings()[members]))
        return self._searches[label]


class LocalPartners:
    """A row of another class among the k nearest (Local Mixup, arXiv 2201.04368).

    A row with none of another class there is mixed with one of those k, of its own class: mixing it
    further away is what local mixup avoids.

    Args:
        classes: The rows.
        embeddings: Gives their embeddings (N, D), when neighbours are first asked for.
        num_neighbors: k.
    """

    def __init__(
        self, classes: Classes, embeddings: Callable[[], Tensor], num_neighbors: int
    ) -> None:
        self.classes, self.embeddings, self.num_neighbors = classes, embeddings, num_neighbors
        self._neighbours: Neighbours | None = None

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        if self._neighbours is None:
            self._neighbours = Neighbours(self.embeddings())
        near = self._neighbours.nearest(rows, self.num_neighbors)
        labels = self.classes.labels
        other = (near != NOBODY) & (labels[near] != labels[rows][:, None])
        only_others = np.where(other, near, NOBODY)
        return _one_of(np.where(other.any(axis=1)[:, None], only_others, near), rows, rng)


class NearTargetPartners:
    """Another row, likelier the closer its target (C-Mixup, arXiv 2210.05775).

    `P(j | i)` is in proportion to `exp(-(y_i - y_j)^2 / (2 s^2))`, with s a tenth of the targets'
    standard deviation times `bandwidth`.

    Args:
        targets: Real targets (N,).
        bandwidth: Larger mixes rows of more different targets.
    """

    def __init__(self, targets: np.ndarray, bandwidth: float = 1.0) -> None:
        errors.positive("bandwidth", bandwidth)
        self.targets = np.asarray(targets, dtype=float)
        self.scale = max(0.1 * bandwidth * float(self.targets.std()), 1e-12)

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        return np.array([self._partner(int(row), rng.random()) for row in rows], dtype=np.int64)

    def _partner(self, row: int, uniform: float) -> int:
        distance = ((self.targets - self.targets[row]) / self.scale) ** 2 / 2
        distance[row] = np.inf
        cumulated = np.cumsum(np.exp(distance.min() - distance))  # the nearest is never 0
        return int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))


def _one_of(near: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One known entry (n,) of each line of `near` (n, k); the row itself where all are -1."""
    known = near != NOBODY
    count = known.sum(axis=1)
    nth = rng.integers(np.maximum(count, 1))
    # The column in which the (nth + 1)-th known entry stands.
    column = (known.cumsum(axis=1) > nth[:, None]).argmax(axis=1)
    return np.where(count == 0, rows, near[np.arange(len(near)), column])
