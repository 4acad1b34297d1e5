"""Proportions and estimates with their 95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 500


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{rounded(self.value)} [{rounded(self.low)}, {rounded(self.high)}]"


def rounded(value: float) -> str:
    """Format with three decimals; fewer for values of ten or more."""
    places = 3 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{places}f}"


@dataclass(frozen=True)
class Rate:
    """A proportion of rows with its 95 % Wilson interval.

    Attributes:
        count: Rows that have the property.
        of: Rows examined.
        low, high: The interval.
    """

    count: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """`count / of`; 0 if no row was examined."""
        return self.count / self.of if self.of else 0.0

    def __str__(self) -> str:
        return f"{self.share:.1%} [{self.low:.1%}, {self.high:.1%}]"


def wilson(count: int, of: int) -> Rate:
    """Return a proportion with its 95 % Wilson score interval (Wilson 1927), which contains it.

    Args:
        count: Rows that have the property.
        of: Rows examined; if 0, the interval is [0, 1].
    """
    if of == 0:
        return Rate(0, 0, 0.0, 1.0)
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(method="wilson")
    share = count / of
    # At 0 and 1, rounding could move a bound of the interval past the share.
    low, high = float(interval.low), float(interval.high)
    return Rate(count, of, min(share, max(0.0, low)), max(share, min(1.0, high)))


def mean_over(values: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return a statistic for `bootstrap_interval`: the mean of `values` (N,) over given rows."""
    return lambda rows: float(values[rows].mean())


def bootstrap_interval(
    figure: Callable[[np.ndarray], float], count: int, seed: int = 0
) -> Interval:
    """Return a statistic of `count` rows with its bootstrap percentile interval.

    Args:
        figure: Computes the statistic from row numbers.
        count: Number of rows.
        seed: Seed of the resampling.
    """
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


def discordant_p(only_first: int, only_second: int) -> float:
    """Two-sided p of the exact McNemar test (McNemar 1947).

    Args:
        only_first: Rows that only the first of two classifiers predicts correctly.
        only_second: Rows that only the second does.
    """
    from scipy.stats import binomtest

    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)
