"""A curriculum over one run, counted in rows; training rows for the places it leaves empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch import Tensor

from mixup_hf import registry
from mixup_hf.mixing.balance import draw_turn, lacking_rows
from mixup_hf.runtime import counter_rng
from mixup_hf.training.curricula import Curriculum
from mixup_hf.types import MixedExample

CONSTANT = "constant"
_FILLING = 13  # what this stream of random numbers is for; part of its key


def parse_curriculum(spec: str) -> Curriculum | None:
    """Read a specification such as `first:0.5`; None for `constant`, which leaves nothing out.

    Raises:
        InvalidInput: Unknown name, or a value that is unknown, repeated or out of range.
    """
    curriculum: Curriculum = registry.build("curriculum", spec)
    return None if spec.partition(":")[0] == CONSTANT else curriculum


@dataclass(frozen=True)
class Course:
    """A curriculum over a run of known length.

    A *place* is where `constant` would put a generated row. Places are counted from the first epoch
    that mixes, and each gets a generated row or none: `generated` rises by 0 or 1 from one place to
    the next. So the places left empty can be counted as exactly as the generated rows.

    Args:
        curriculum: Which part of the places gets a row, at each point of the run.
        epochs: Length of the run.
        warmup: Epochs of the run before the first one that mixes.
    """

    curriculum: Curriculum
    epochs: Fraction
    warmup: int = 0

    def generated(self, places: int, places_per_epoch: Fraction) -> int:
        """How many of the first `places` places get a generated row."""
        whole, before = self.epochs * places_per_epoch, self.warmup * places_per_epoch
        if whole == 0:
            return 0
        return int(whole * (self._upto((before + places) / whole) - self._upto(before / whole)))

    def _upto(self, progress: Fraction) -> Fraction:
        """Beyond the end of the run, where a loader may already ask for batches, as at its end."""
        over = max(Fraction(0), progress - 1)
        end = Fraction(1)
        return self.curriculum.cumulative(min(progress, end)) + over * self.curriculum.part(end)


class RealRows:
    """The training rows in a seeded order, one permutation after the other.

    Args:
        texts: The training texts (N), pairs joined.
        targets: Their labels (N, C).
        seed: Of the order.
        balance: Their share among all rows. Above 0, they make up for what the rarer classes lack.
    """

    def __init__(
        self, texts: Sequence[str], targets: Tensor, seed: int, *, balance: float = 0.0
    ) -> None:
        self.texts = texts
        self.targets = targets
        self.seed = seed
        self._classes = targets.argmax(1).numpy() if balance > 0 else None
        self._wanted = {} if self._classes is None else lacking_rows(self._classes, balance)
        self._latest: tuple[int, np.ndarray] | None = None

    def at(self, positions: range) -> list[MixedExample]:
        """The rows at these positions: each its own only parent."""
        return [self._row(position) for position in positions]

    def _row(self, position: int) -> MixedExample:
        turn, place = divmod(position, len(self.texts))
        at = int(self._order(turn)[place])
        return MixedExample(
            text=self.texts[at],
            label=tuple(self.targets[at].tolist()),
            lam=1.0,
            parents=(at,),
            shares=(1.0,),
            seed=self.seed,
            epoch=turn,
            index=position,
            aligner_fingerprint="",
        )

    def _order(self, turn: int) -> np.ndarray:
        latest = self._latest
        if latest is None or latest[0] != turn:
            rng = counter_rng(self.seed, _FILLING, turn)
            if self._classes is None:
                order = rng.permutation(len(self.texts))
            else:
                members = {each: np.flatnonzero(self._classes == each) for each in self._wanted}
                order = draw_turn(self._wanted, members, rng)
            latest = self._latest = turn, order
        return latest[1]
