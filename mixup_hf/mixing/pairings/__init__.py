"""Which row another is mixed with. A pairing is one file in this folder.

@register("pairing", "previous", help="the row before")
class Previous(Pairing):
def draw(self, rows, rng):
return rows - 1
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mixup_hf import errors

if TYPE_CHECKING:
    from torch import Tensor

    from mixup_hf.mixing.neighbors import Neighbors

NOBODY = -1  # stands where there are fewer neighbors than were asked for


class TrainingRows:
    """What a pairing can know about the training rows.

    Args:
        labels: Class indices (N,), or real targets.
        embeddings: Gives the rows' embeddings (N, D); called when they are first needed.
        num_neighbors: k, for pairings that choose among neighbors.
        first: For each row, the first with the same text (N,). Default: all texts differ.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        embeddings: Callable[[], Tensor] | None = None,
        num_neighbors: int = 5,
        first: np.ndarray | None = None,
    ) -> None:
        errors.at_least("num_neighbors", num_neighbors, 1)
        self.labels = np.asarray(labels)
        if len(self.labels) < 2:
            raise errors.bad("labels", "hold at least two rows", len(self.labels))
        self.num_neighbors = num_neighbors
        self.first = np.arange(len(self.labels)) if first is None else first
        self._embeddings = embeddings

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def classes(self) -> Classes:
        """The rows in the order of their classes."""
        return Classes(self.labels)

    @property
    def has_embeddings(self) -> bool:
        """Whether embeddings can be had."""
        return self._embeddings is not None

    def embeddings(self) -> Tensor:
        """The rows' embeddings (N, D).

        Raises:
            InvalidState: They were not given.
        """
        if self._embeddings is None:
            raise errors.InvalidState("These rows have no `embeddings` to find neighbors by.")
        return self._embeddings()

    def neighbors(self, members: np.ndarray | None = None) -> Neighbors:
        """A search among all rows, or among `members` (n,), whose results count from 0 to n - 1."""
        from mixup_hf.mixing.neighbors import Neighbors

        embeddings = self.embeddings()
        return Neighbors(embeddings if members is None else embeddings[members])


class Pairing(ABC):
    """Draws partners for rows. A subclass declares what it needs, and draws.

    Attributes:
        needs_classes: Whether labels must be class indices; False allows real targets too.
        needs_embeddings: Whether it looks at the rows' embeddings.
        sampling_strategy: How often each class comes first, unless the user sets it.

    Args:
        rows: The training rows. Neighbors are searched when first needed; embeddings that have
            changed need a new object.
    """

    needs_classes: ClassVar[bool] = True
    needs_embeddings: ClassVar[bool] = False
    sampling_strategy: ClassVar[str | None] = None

    def __init__(self, rows: TrainingRows) -> None:
        self.rows = rows

    @abstractmethod
    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""


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


def one_of(near: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One known entry (n,) of each line of `near` (n, k); the row itself where all are -1."""
    known = near != NOBODY
    count = known.sum(axis=1)
    nth = rng.integers(np.maximum(count, 1))
    # The column in which the (nth + 1)-th known entry stands.
    column = (known.cumsum(axis=1) > nth[:, None]).argmax(axis=1)
    return np.where(count == 0, rows, near[np.arange(len(near)), column])
