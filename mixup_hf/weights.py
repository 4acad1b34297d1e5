"""Distributions of the mixing weight lam: the share of the first parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mixup_hf import _checks


class Weights(Protocol):
    """A distribution of mixing weights."""

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weights (n,), float64."""
        ...

    @property
    def mean(self) -> float:
        """E[W]."""
        ...

    @property
    def second_moment(self) -> float:
        """E[W^2]."""
        ...


def variance_factor(weights: Weights) -> float:
    """How much of the parents' covariance mixes keep: `f = 1 - 2 E[W] + 2 E[W^2]`.

    For independent parents with covariance S, `Cov(W x1 + (1 - W) x2) = f S` (arXiv 2503.02645).
    """
    return 1.0 - 2.0 * weights.mean + 2.0 * weights.second_moment


@dataclass(frozen=True)
class Beta:
    """Beta(alpha, alpha) on [0, 1] (mixup, Zhang et al. 2018).

    Args:
        alpha: Below 1 most mixes are close to one parent; 1 is uniform; above, close to the middle.
    """

    alpha: float = 0.4

    def __post_init__(self) -> None:
        _checks.positive("weights.alpha", self.alpha, "Common values lie between 0.1 and 2.")

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


@dataclass(frozen=True)
class Uniform:
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


@dataclass(frozen=True)
class Fixed:
    """The same weight for every pair."""

    weight: float = 0.5

    def __post_init__(self) -> None:
        _checks.in_range("weights.weight", self.weight, 0.0, 1.0)

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


_BY_NAME: dict[str, tuple[Callable[..., Weights], int]] = {
    "beta": (Beta, 1),
    "uniform": (Uniform, 0),
    "fixed": (Fixed, 1),
}


def parse_weights(spec: str) -> Weights:
    """Read a short specification: `beta:0.4`, `uniform`, `fixed:0.5`.

    Raises:
        ValueError: Unknown name, wrong number of values, or a value out of range.
    """
    name, _, rest = spec.partition(":")
    way_out = "Write, for example, 'beta:0.4', 'uniform' or 'fixed:0.5'."
    if name not in _BY_NAME:
        raise _checks.bad("weights", f"name one of {', '.join(_BY_NAME)}", spec, way_out)
    make, most = _BY_NAME[name]
    values = [part for part in rest.split(",") if part]
    if len(values) > most:
        raise _checks.bad("weights", f"give at most {most} value(s) to {name!r}", spec, way_out)
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        raise _checks.bad("weights", "hold numbers after the colon", spec, way_out) from None
    return make(*numbers)
