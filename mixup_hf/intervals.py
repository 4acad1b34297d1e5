"""Figures with what is known of them: shares and estimates with their 95 % intervals."""

from __future__ import annotations

from dataclasses import dataclass

_Z = 1.959964  # of a two-sided interval of 95 %


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
