"""A share of generated rows that rises or falls evenly."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from mixup_hf.registry import register
from mixup_hf.training.curricula import exact


@register(
    "curriculum",
    "ramp",
    help=(
        "generated rows per real row go evenly from START to END times those of `mix_ratio`, by "
        "default from 0 to 1; `ramp:1,0` falls"
    ),
    usage="ramp:START,END",
)
@dataclass(frozen=True)
class Ramp:
    """Generated rows per real row that change linearly over the run.

    With the default, `mix_ratio` is reached at the end, and a run uses half as many generated rows
    as with `constant`.

    Args:
        start: Part at the beginning, in [0, 1].
        end: Part at the end, in [0, 1].
    """

    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        exact("start", self.start)
        exact("end", self.end)

    def part(self, progress: Fraction) -> Fraction:
        """On the line from `start` to `end`."""
        start = exact("start", self.start)
        return start + (exact("end", self.end) - start) * progress

    def cumulative(self, progress: Fraction) -> Fraction:
        """The area under that line."""
        start = exact("start", self.start)
        return start * progress + (exact("end", self.end) - start) * progress**2 / 2
