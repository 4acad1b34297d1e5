"""Beta(alpha, alpha), mixup's distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup_hf import errors
from mixup_hf.mixing.weights import TwoParents
from mixup_hf.registry import register


@register("weights", "beta", help="Beta(ALPHA, ALPHA), by default 0.4", usage="beta:ALPHA")
@dataclass(frozen=True)
class Beta(TwoParents):
    """Beta(alpha, alpha) on [0, 1] (mixup, Zhang et al. 2018).

    Args:
        alpha: Below 1 most mixes are close to one parent; 1 is uniform; above, close to the middle.
    """

    alpha: float = 0.4

    def __post_init__(self) -> None:
        errors.positive("weights.alpha", self.alpha, "Common values lie between 0.1 and 2.")

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weights (n,)."""
        return rng.beta(self.alpha, self.alpha, size=n)

    @property
    def mean(self) -> float:
        """1/2 by symmetry."""
        return 0.5

    @property
    def second_moment(self) -> float:
        """Variance 1 / (4 (2 alpha + 1)) plus the squared mean."""
        return 0.25 + 0.25 / (2 * self.alpha + 1)
