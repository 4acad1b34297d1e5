"""Rows with similar targets, for regression."""

from __future__ import annotations

import numpy as np

from mixup_hf.mixing.pairings import Pairing, TrainingRows
from mixup_hf.registry import register


@register("pairing", "near_target", help="a row with a similar target; for regression")
class NearTarget(Pairing):
    """Another row, more likely the closer its target (C-Mixup, arXiv 2210.05775).

    `P(j | i)` is proportional to `exp(-(y_i - y_j)^2 / (2 s^2))`, with s a tenth of the targets'
    standard deviation.
    """

    needs_classes = False

    def __init__(self, rows: TrainingRows) -> None:
        super().__init__(rows)
        self.targets = rows.labels.astype(float)
        self.scale = max(0.1 * float(self.targets.std()), 1e-12)

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        return np.array([self._partner(int(row), rng.random()) for row in rows], dtype=np.int64)

    def _partner(self, row: int, uniform: float) -> int:
        distance = ((self.targets - self.targets[row]) / self.scale) ** 2 / 2
        distance[row] = np.inf
        cumulated = np.cumsum(np.exp(distance.min() - distance))  # the nearest is never 0
        return int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))
