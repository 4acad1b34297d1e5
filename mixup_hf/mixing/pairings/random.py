"""Any two rows."""

from __future__ import annotations

import numpy as np

from mixup_hf.mixing.pairings import Pairing
from mixup_hf.registry import register


@register("pairing", "random", help="any other row")
class Random(Pairing):
    """Any other row, each equally likely."""

    needs_classes = False

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One partner (n,) for each of `rows` (n,)."""
        at = rng.integers(len(self.rows) - 1, size=len(rows))
        return at + (at >= rows)
