"""One weight for every pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup_hf import errors
from mixup_hf.mixing.weights import TwoParents
from mixup_hf.registry import register


@register("weights", "fixed", help="the same weight for every pair", usage="fixed:WEIGHT")
@dataclass(frozen=True)
class Fixed(TwoParents):
    """The same weight for every pair."""

    weight: float = 0.5

    def __post_init__(self) -> None:
        errors.in_range("weights.weight", self.weight, 0.0, 1.0)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` times the weight."""
        return np.full(n, self.weight)

    @property
    def mean(self) -> float:
        """The weight."""
        return self.weight

    @property
    def second_moment(self) -> float:
        """Its square."""
        return self.weight**2
