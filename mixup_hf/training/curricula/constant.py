"""The same share of generated rows throughout."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from mixup_hf.registry import register


@register("curriculum", "constant", help="`mix_ratio` throughout")
@dataclass(frozen=True)
class Constant:
    """All generated rows that `mix_ratio` asks for, throughout."""

    def part(self, progress: Fraction) -> Fraction:
        """1."""
        return Fraction(1)

    def cumulative(self, progress: Fraction) -> Fraction:
        """The progress."""
        return progress
