"""Near rows of other classes."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mixup_hf.mixing.pairings import NOBODY, Pairing, one_of
from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.mixing.neighbors import Neighbors


@register("pairing", "local", help="a row of another class among the k nearest")
class Local(Pairing):
    """A row of another class among the k nearest (Local Mixup, arXiv 2201.04368).

    If all k are of the row's own class, one of them is drawn: distant rows are never mixed.
    """

    needs_embeddings = True

    @cached_property
    def _search(self) -> Neighbors:
        return self.rows.neighbors()

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        near = self._search.nearest(rows, self.rows.num_neighbors)
        labels = self.rows.labels
        other = (near != NOBODY) & (labels[near] != labels[rows][:, None])
        only_others = np.where(other, near, NOBODY)
        return one_of(np.where(other.any(axis=1)[:, None], only_others, near), rows, rng)
