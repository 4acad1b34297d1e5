"""Distributions of the mixing weight lam: the share of the first parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mixup_hf import errors


class Weights(Protocol):
    """A distribution of mixing weights."""

    @property
    def num_parents(self) -> int:
        """m: how many rows are mixed."""
        ...

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weights of the first parent (n,), or of all m parents (n, m); float64."""
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
    With m parents of like weights, `f = m E[W^2]`.
    """
    if weights.num_parents > 2:
        return weights.num_parents * weights.second_moment
    return 1.0 - 2.0 * weights.mean + 2.0 * weights.second_moment


class _TwoParents:
    """Weights of which the second parent has what the first leaves."""

    @property
    def num_parents(self) -> int:
        """2."""
        return 2


@dataclass(frozen=True)
class Beta(_TwoParents):
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


@dataclass(frozen=True)
class Uniform(_TwoParents):
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
class Fixed(_TwoParents):
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


@dataclass(frozen=True)
class EpBeta(_TwoParents):
    """EpBeta on [-eps0, 1 + eps1]: `W = -eps0 + (1 + eps0 + eps1) B`, `B ~ Beta(alpha, beta)`.

    Structure-preserving mixup (arXiv 2503.02645): going a little beyond the parents makes up for
    the variance that mixing between them loses. `symmetric` and `from_mean` choose parameters that
    keep all of it; `check_variance` refuses others.

    Args:
        alpha: First shape of B.
        beta: Second shape of B.
        eps0: How far W goes below 0.
        eps1: How far W goes above 1.
    """

    alpha: float
    beta: float
    eps0: float
    eps1: float

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            errors.positive(f"weights.{name}", getattr(self, name))
        for name in ("eps0", "eps1"):
            errors.at_least(f"weights.{name}", getattr(self, name), 0.0)

    @classmethod
    def symmetric(cls, eps: float = 0.3) -> EpBeta:
        """Variance kept exactly, mean 1/2: `alpha = beta = 2 eps (1 + eps)`.

        Raises:
            ValueError: `eps` is not positive: only extrapolation keeps all of the variance.
        """
        errors.positive("weights.eps", eps, "Common values lie between 0.1 and 0.5.")
        shape = 2 * eps * (1 + eps)
        return cls(shape, shape, eps, eps)

    @classmethod
    def from_mean(cls, mean: float, eps0: float, eps1: float) -> EpBeta:
        """Variance kept exactly, with a given mean of W.

        Args:
            mean: E[W], in (0, 1); 0.9 keeps mixes close to the first parent.
            eps0: How far W goes below 0.
            eps1: How far W goes above 1.

        Raises:
            ValueError: No Beta distribution has such a mean and variance on that interval.
        """
        errors.in_range("weights.mean", mean, 0.0, 1.0)
        for name, value in (("eps0", eps0), ("eps1", eps1)):
            errors.at_least(f"weights.{name}", value, 0.0)
        length = 1 + eps0 + eps1
        variance = mean * (1 - mean) / length**2
        middle = (mean + eps0) / length
        size = middle * (1 - middle) / variance - 1 if variance > 0 else 0.0
        if size <= 0:
            raise errors.InvalidInput(
                f"`weights`: no EpBeta with mean {mean:g}, eps0 {eps0:g} and eps1 {eps1:g} keeps "
                "the variance. Take a mean strictly between 0 and 1, and eps0 or eps1 above 0."
            )
        return cls(middle * size, (1 - middle) * size, eps0, eps1)

    def check_variance(self, tolerance: float) -> EpBeta:
        """This distribution, if mixes keep the variance to within `tolerance`.

        Raises:
            ValueError: They do not.
        """
        errors.positive("weights.tol", tolerance)
        factor = variance_factor(self)
        if abs(factor - 1) > tolerance:
            raise errors.InvalidInput(
                f"`weights`: mixes keep {factor:.4g} of the variance, which is not 1 to within tol "
                f"{tolerance:g}. Leave alpha and beta out ('epbeta:eps=0.3'), or raise tol."
            )
        return self

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weights (n,), some of them outside [0, 1]."""
        return -self.eps0 + self._length * rng.beta(self.alpha, self.beta, size=n)

    @property
    def mean(self) -> float:
        """E[W]."""
        return -self.eps0 + self._length * self._moments[0]

    @property
    def second_moment(self) -> float:
        """E[W^2]."""
        first, second = self._moments
        return self.eps0**2 - 2 * self.eps0 * self._length * first + self._length**2 * second

    @property
    def _length(self) -> float:
        return 1 + self.eps0 + self.eps1

    @property
    def _moments(self) -> tuple[float, float]:
        size = self.alpha + self.beta
        first = self.alpha / size
        return first, first * (self.alpha + 1) / (size + 1)


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
        if self.m != int(self.m) or self.m < 2:
            raise errors.bad(
                "weights.m", "be a whole number of parents, at least 2", self.m, "Try m=3."
            )
        object.__setattr__(self, "m", int(self.m))  # a specification gives all numbers as floats

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


def _epbeta(
    eps: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    eps0: float | None = None,
    eps1: float | None = None,
    mean: float | None = None,
    tol: float | None = None,
) -> EpBeta:
    """The three ways of choosing an EpBeta, told apart by which values are given."""
    shapes, ends = (alpha, beta), (eps0, eps1)
    if eps is not None or not any(value is not None for value in (*shapes, *ends, mean)):
        if any(value is not None for value in (*shapes, *ends, mean)):
            raise errors.InvalidInput(f"`weights`: eps stands alone (or with tol). {_EPBETA_WAYS}")
        made = EpBeta.symmetric(0.3 if eps is None else eps)
    elif eps0 is not None and eps1 is not None and mean is not None and shapes == (None, None):
        made = EpBeta.from_mean(mean, eps0, eps1)
    elif None not in (*shapes, *ends) and mean is None:
        made = EpBeta(*shapes, *ends)  # type: ignore[arg-type]  # none of them is None
    else:
        raise errors.InvalidInput(f"`weights`: these values do not make an EpBeta. {_EPBETA_WAYS}")
    return made if tol is None else made.check_variance(tol)


_EPBETA_WAYS = (
    "Write 'epbeta:eps=0.3', 'epbeta:mean=0.9,eps0=0.3,eps1=0.3' or "
    "'epbeta:alpha=4.34,beta=1.33,eps0=0.3,eps1=0.3', each with ',tol=0.01' if you like."
)
# What makes a distribution, and the names of its values, in order.
_BY_NAME: dict[str, tuple[Callable[..., Weights], tuple[str, ...]]] = {
    "beta": (Beta, ("alpha",)),
    "uniform": (Uniform, ()),
    "fixed": (Fixed, ("weight",)),
    "epbeta": (_epbeta, ("eps", "alpha", "beta", "eps0", "eps1", "mean", "tol")),
    "dirichlet": (Dirichlet, ("alpha", "m")),
}


def parse_weights(spec: str) -> Weights:
    """Read a short specification, such as `beta:0.4`, `epbeta:eps=0.3` or `dirichlet:1.0,m=3`.

    Values are given in order or by name.

    Raises:
        ValueError: Unknown name, unknown or repeated value, or a value out of range.
    """
    name, _, rest = spec.partition(":")
    way_out = (
        "Write, for example, 'beta:0.4', 'uniform', 'fixed:0.5', 'epbeta:eps=0.3' or "
        "'dirichlet:1.0,m=3'."
    )
    if name not in _BY_NAME:
        raise errors.bad("weights", f"name one of {', '.join(_BY_NAME)}", spec, way_out)
    make, names = _BY_NAME[name]
    parts = [part for part in rest.split(",") if part]
    if len(parts) > len(names):
        raise errors.bad(
            "weights", f"give at most {len(names)} value(s) to {name!r}", spec, way_out
        )
    numbers: dict[str, float] = {}
    for position, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if not equals:
            key, value = names[position], part
        if key not in names or key in numbers:
            rule = f"give {name!r} each of {', '.join(names) or 'no values'} at most once"
            raise errors.bad("weights", rule, spec, way_out)
        try:
            numbers[key] = float(value)
        except ValueError:
            raise errors.bad("weights", "hold numbers after the colon", spec, way_out) from None
    return make(**numbers)
