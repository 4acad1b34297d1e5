"""When in a run rows are generated: the share of `mix_ratio` at each point. One file each here."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

from mixup_hf import errors

_LARGEST_DENOMINATOR = 1_000_000


class Curriculum(Protocol):
    """What part of the generated rows that `mix_ratio` asks for is used at each point of a run.

    The part multiplies the generated rows per real row, `mix_ratio / (1 - mix_ratio)`. It lies in
    [0, 1], so that `mix_ratio` bounds the size of a batch. Progress is the part of the run's real
    rows that came before, in [0, 1]. Both methods compute with exact fractions: which rows a batch
    gets must not depend on rounding.
    """

    def part(self, progress: Fraction) -> Fraction:
        """The part at one point of the run."""
        ...

    def cumulative(self, progress: Fraction) -> Fraction:
        """The integral of `part` from 0 to `progress`."""
        ...


def exact(name: str, value: float) -> Fraction:
    """A number of a specification as an exact fraction.

    Raises:
        InvalidInput: It does not lie in [0, 1].
    """
    errors.in_range(f"curriculum.{name}", value, 0.0, 1.0)
    return Fraction(value).limit_denominator(_LARGEST_DENOMINATOR)
