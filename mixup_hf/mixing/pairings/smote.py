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

    A class of fewer than k + 1 rows offers all its others; a class of a single row, that row. Of
    rows with the same text one is offered, to rows of other texts: mixed with its copy, a text
    gives itself.
    """

    needs_embeddings = True

    def __init__(self, rows: TrainingRows) -> None:
        super().__init__(rows)
        self._searches: dict[int, tuple[np.ndarray, np.ndarray, Neighbors]] = {}

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        classes, count = self.rows.classes, self.rows.num_neighbors
        near = np.full((len(rows), count), NOBODY)
        labels = classes.labels[rows]
        for label in np.unique(labels):
            here = labels == label
            offered, place, search = self._search(int(label))
            found = search.nearest(place[classes.place[rows[here]]], count)
            near[here] = np.where(found == NOBODY, NOBODY, offered[found])
        return one_of(near, rows, rng)

    def _search(self, label: int) -> tuple[np.ndarray, np.ndarray, Neighbors]:
        """The rows offered, where each member's text is among them, and a search among them."""
        if label not in self._searches:
            members = self.rows.classes.members(label)
            _, at, place = np.unique(
                self.rows.first[members], return_index=True, return_inverse=True
            )
            offered = members[at]
            self._searches[label] = (offered, place, self.rows.neighbors(offered))
        return self._searches[label]
