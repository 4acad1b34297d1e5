"""The uniform distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup_hf.mixing.weights import TwoParents
from mixup_hf.registry import register


@register("weights", "uniform", help="uniform on [0, 1]")
@dataclass(frozen=True)
class Uniform(TwoParents):
    """Uniform on [0, 1], as in SMOTE and SMOTExT (arXiv 2505.13434)."""

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weights (n,)."""
        return rng.random(n)

    @property
    def mean(self) -> float:
        """1/2."""
        return 0.5

    @property
    def second_moment(self) -> float:
        """1/3."""
        return 1.0 / 3.0
