"""Dirichlet weights of any number of parents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup_hf import errors
from mixup_hf.registry import register


@register("weights", "dirichlet", help="M parents at once", usage="dirichlet:ALPHA,m=M")
@dataclass(frozen=True)
class Dirichlet:
    """Dirichlet(alpha, ..., alpha) over m parents at once (SMOTExT's open question 1).

    Args:
        alpha: Below 1 most mixes are close to one parent; 1 is uniform on the simplex.
        m: How many parents, at least 2.
    """

    alpha: float = 1.0
    m: int = 3

    def __post_init__(self) -> None:
        errors.positive("weights.alpha", self.alpha, "Common values lie between 0.1 and 2.")
        errors.at_least("weights.m", self.m, 2, "It is the number of parents; try m=3.")

    @property
    def num_parents(self) -> int:
        """How many."""
        return self.m

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weights of all parents (n, m); each line sums to 1."""
        return rng.dirichlet([self.alpha] * self.m, size=n)

    @property
    def mean(self) -> float:
        """1 / m by symmetry."""
        return 1.0 / self.m

    @property
    def second_moment(self) -> float:
        """E[W^2] of one parent: `(alpha + 1) / (m (m alpha + 1))`."""
        return (self.alpha + 1) / (self.m * (self.m * self.alpha + 1))
