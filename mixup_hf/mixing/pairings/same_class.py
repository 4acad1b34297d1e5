"""Rows of the same class."""

from __future__ import annotations

import numpy as np

from mixup_hf.mixing.pairings import Pairing
from mixup_hf.registry import register


@register("pairing", "same_class", help="another row of the same class")
class SameClass(Pairing):
    """Another row of the class; the row itself where its class has no other."""

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        classes = self.rows.classes
        size, place = classes.size[rows], classes.place[rows]
        at = rng.integers(np.maximum(size - 1, 1))
        at = np.where(size == 1, 0, at + (at >= place))
        partners: np.ndarray = classes.order[classes.start[rows] + at]
        return partners


@register("pairing", "minority", help="as same_class, but rarer classes come more often")
class Minority(SameClass):
    """Another row of the class, with as many mixes as the class lacks rows (oversampling)."""

    sampling_strategy = "auto"
