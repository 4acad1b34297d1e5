"""Thresholds of the judges' events, and how they are calibrated on real rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors

THIRD_CLASS, CONFLICT, COLLISION = "third_class", "conflict", "collision"

# A class is rare if the largest has at least three times its rows; see the setting `balance`.
_RARE_RATIO = 3
# Of a rare class: with fewer rows there is nothing to calibrate on.
_FEWEST_OF_CLASS = 12


@dataclass(frozen=True)
class Thresholds:
    """Scores beyond which an event is reported; the defaults serve sets too small to calibrate on.

    Attributes:
        third_class: Largest probability of a class that no parent has.
        conflict: Largest `KL(label || judged)` in nats; 2.3 is a judged probability of 0.1.
        collision: Smallest distance to a real row of a class that no parent has.
        rate: Share of real rows that trigger at least one event; None when not calibrated.
    """

    third_class: float = 0.8
    conflict: float = 2.3
    collision: float = 0.0
    rate: float | None = None

    def by_event(self) -> dict[str, float]:
        """The score that each event begins above; a score is larger the worse it is."""
        return {
            THIRD_CLASS: self.third_class,
            CONFLICT: self.conflict,
            COLLISION: -self.collision,
        }


def calibrate(scores: Mapping[str, Tensor], rate: float) -> Thresholds:
    """Thresholds that a given share of real rows exceeds.

    Every event is given the same share of the rows, the largest for which at most `rate` of all
    rows trigger any event.

    Args:
        scores: Out-of-fold scores of real rows (N,) by event.
        rate: In (0, 0.5].
    """
    errors.positive("intrusion_rate", rate)
    errors.in_range("intrusion_rate", rate, 0.0, 0.5)
    values = {name: score.double().numpy() for name, score in scores.items()}
    low, high = 0.0, rate
    for _ in range(40):
        middle = (low + high) / 2
        fired = np.zeros(len(next(iter(values.values()))), bool)
        for score in values.values():
            fired |= score > _quantile(score, middle)
        low, high = (middle, high) if fired.mean() <= rate else (low, middle)
    third, conflict, collision = (
        _quantile(values[name], low) for name in (THIRD_CLASS, CONFLICT, COLLISION)
    )
    return Thresholds(third, conflict, -collision, rate)


def rare_limits(
    scores: Mapping[str, Tensor], classes: Tensor, num_classes: int, rate: float
) -> dict[str, Tensor]:
    """Scores (C,) that rows with a parent of a rare class must exceed besides, by event.

    Thresholds of all rows are those of the large classes. Judges know a rare class less well, and
    its rows would all be doubted: they get limits that at most `rate` of the class's own rows
    exceed, and none can be exceeded where the class has too few rows to tell.

    Args:
        scores: Out-of-fold scores of real rows (N,) by event.
        classes: Their classes (N,).
        num_classes: C.
        rate: As for `calibrate`.

    Returns:
        Minus infinity for classes that are not rare; nothing where no class is.
    """
    sizes = torch.bincount(classes, minlength=num_classes)
    rare = (sizes * _RARE_RATIO <= sizes.max()).nonzero().flatten().tolist()
    limits = {name: torch.full((num_classes,), -torch.inf, dtype=torch.double) for name in scores}
    for each in rare:
        for name, score in scores.items():
            own = score[classes == each].double().numpy()
            known = len(own) >= _FEWEST_OF_CLASS
            limits[name][each] = _quantile(own, rate) if known else torch.inf
    return limits if rare else {}


def _quantile(scores: np.ndarray, share: float) -> float:
    """A value that at most `share` of the scores exceed."""
    return float(np.quantile(scores, 1 - share, method="higher"))
