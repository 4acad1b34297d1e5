"""EpBeta, structure-preserving mixup's distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup_hf import errors
from mixup_hf.mixing.weights import TwoParents, variance_factor
from mixup_hf.registry import register

_EPBETA_WAYS = (
    "Write 'epbeta:eps=0.3', 'epbeta:mean=0.9,eps0=0.3,eps1=0.3' or "
    "'epbeta:alpha=4.34,beta=1.33,eps0=0.3,eps1=0.3', each with ',tol=0.01' if you like."
)


@dataclass(frozen=True)
class EpBeta(TwoParents):
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


@register(
    "weights",
    "epbeta",
    help="Beta stretched by EPS beyond both parents, which keeps the variance",
    usage="epbeta:eps=EPS",
)
def epbeta(
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
