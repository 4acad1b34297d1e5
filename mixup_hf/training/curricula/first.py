"""Generated rows at the beginning of a run only."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from mixup_hf.registry import register
from mixup_hf.training.curricula import exact


@register(
    "curriculum",
    "first",
    help="generated rows in the first SHARE of the run only, by default 0.5",
    usage="first:SHARE",
)
@dataclass(frozen=True)
class First:
    """Generated rows first, then real rows only: training ends on the data it is meant for.

    Args:
        share: Part of the run with generated rows, in [0, 1].
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        exact("share", self.share)

    def part(self, progress: Fraction) -> Fraction:
        """1 before `share`, then 0."""
        return Fraction(progress < exact("share", self.share))

    def cumulative(self, progress: Fraction) -> Fraction:
        """The progress, up to `share`."""
        return min(progress, exact("share", self.share))
