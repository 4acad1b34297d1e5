"""Rows of different classes."""

from __future__ import annotations

import numpy as np

from mixup_hf import errors
from mixup_hf.mixing.pairings import Pairing, TrainingRows
from mixup_hf.registry import register


@register("pairing", "cross_class", help="a row of another class")
class CrossClass(Pairing):
    """A row of another class, each equally likely.

    Raises:
        InvalidInput: There is only one class.
    """

    def __init__(self, rows: TrainingRows) -> None:
        if rows.classes.count < 2:
            raise errors.InvalidInput(
                "`pairing` = 'cross_class' needs at least two classes, but there is one."
            )
        super().__init__(rows)

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        classes = self.rows.classes
        start, size = classes.start[rows], classes.size[rows]
        at = rng.integers(len(self.rows) - size)
        partners: np.ndarray = classes.order[at + size * (at >= start)]
        return partners
