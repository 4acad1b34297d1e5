"""Distributions of lambda, the weight of the first parent. A distribution is one file here."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mixup_hf import registry


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


class TwoParents:
    """Base of distributions in which the second parent gets what the first leaves."""

    @property
    def num_parents(self) -> int:
        """2."""
        return 2


def parse_weights(spec: str) -> Weights:
    """Read a specification such as `beta:0.4`, `epbeta:eps=0.3` or `dirichlet:1.0,m=3`.

    Values are given in order or by name; `registry.choices("weights")` lists the distributions.

    Raises:
        InvalidInput: Unknown name, unknown or repeated value, or a value out of range.
    """
    weights: Weights = registry.build("weights", spec)
    return weights


def variance_factor(weights: Weights) -> float:
    """How much of the parents' covariance mixes keep: `f = 1 - 2 E[W] + 2 E[W^2]`.

    For independent parents with covariance S, `Cov(W x1 + (1 - W) x2) = f S` (arXiv 2503.02645).
    With m parents of equally distributed weights, `f = m E[W^2]`.
    """
    if weights.num_parents > 2:
        return weights.num_parents * weights.second_moment
    return 1.0 - 2.0 * weights.mean + 2.0 * weights.second_moment
