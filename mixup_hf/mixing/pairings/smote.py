"""Near rows of the same class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixup_hf.mixing.pairings import NOBODY, Pairing, TrainingRows, one_of
from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.mixing.neighbors import Neighbors


@register("pairing", "smote", help="one of the k nearest rows of the same class")
class Smote(Pairing):
    """One of the k nearest rows of the class (SMOTE; SMOTExT, arXiv 2505.13434).

    A class of fewer than k + 1 rows offers all its others; a class of a single row, that row.
    """

    needs_embeddings = True

    def __init__(self, rows: TrainingRows) -> None:
        super().__init__(rows)
        self._searches: dict[int, tuple[np.ndarray, Neighbors]] = {}

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        classes, count = self.rows.classes, self.rows.num_neighbors
        near = np.full((len(rows), count), NOBODY)
        labels = classes.labels[rows]
        for label in np.unique(labels):
            here = labels == label
            members, search = self._search(int(label))
            found = search.nearest(classes.place[rows[here]], count)
            near[here] = np.where(found == NOBODY, NOBODY, members[found])
        return one_of(near, rows, rng)

    def _search(self, label: int) -> tuple[np.ndarray, Neighbors]:
        if label not in self._searches:
            members = self.rows.classes.members(label)
            self._searches[label] = (members, self.rows.neighbors(members))
        return self._searches[label]
