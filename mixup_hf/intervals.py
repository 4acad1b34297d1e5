"""Figures with what is known of them: shares and estimates with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_Z = 1.959964  # of a two-sided interval of 95 %
_RESAMPLES = 500


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{rounded(self.value)} [{rounded(self.low)}, {rounded(self.high)}]"


def rounded(value: float) -> str:
    """Three places after the point; of a figure of ten or more, fewer."""
    places = 3 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{places}f}"


@dataclass(frozen=True)
class Rate:
    """A share of rows with its Wilson interval (95 %).

    Attributes:
        count: Rows that had it.
        of: Rows looked at.
        low, high: The interval.
    """

    count: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """`count / of`; 0 of none."""
        return self.count / self.of if self.of else 0.0

    def __str__(self) -> str:
        return f"{self.share:.1%} [{self.low:.1%}, {self.high:.1%}]"


def wilson(count: int, of: int) -> Rate:
    """A share with its Wilson score interval."""
    if of == 0:
        return Rate(0, 0, 0.0, 1.0)
    share, square = count / of, _Z**2
    middle = (share + square / (2 * of)) / (1 + square / of)
    spread = share * (1 - share) / of + square / (4 * of**2)
    half = _Z * spread**0.5 / (1 + square / of)
    # Of none, or of all, rounding could put the interval beside the share.
    return Rate(count, of, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def mean_over(values: np.ndarray) -> Callable[[np.ndarray], float]:
    """The mean of `values` (N,) over given rows: a figure for `bootstrap_interval`."""
    return lambda rows: float(values[rows].mean())


def bootstrap_interval(
    figure: Callable[[np.ndarray], float], count: int, seed: int = 0
) -> Interval:
    """A figure over all of `count` rows, and its percentile interval over resampled rows."""
    from scipy.stats import bootstrap

    rows = np.arange(count)
    result = bootstrap(
        (rows,),
        lambda sample: figure(np.asarray(sample)),
        vectorized=False,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(figure(rows), float(low), float(high))
