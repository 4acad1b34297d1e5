"""Generated rows at the end of a run only."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from mixup_hf.registry import register
from mixup_hf.training.curricula import exact


@register(
    "curriculum",
    "last",
    help="generated rows in the last SHARE of the run only, by default 0.5",
    usage="last:SHARE",
)
@dataclass(frozen=True)
class Last:
    """Real rows only at first, then generated rows as well.

    Args:
        share: Part of the run with generated rows, in [0, 1].
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        exact("share", self.share)

    def part(self, progress: Fraction) -> Fraction:
        """0 up to `1 - share`, then 1."""
        return Fraction(progress >= 1 - exact("share", self.share))

    def cumulative(self, progress: Fraction) -> Fraction:
        """The progress beyond `1 - share`."""
        return max(Fraction(0), progress - (1 - exact("share", self.share)))
