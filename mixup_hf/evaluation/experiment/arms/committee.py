"""The committee alone: a user should ship it if nothing beats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    import numpy as np

    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.judging.labels import Committee


@dataclass(frozen=True)
class CommitteePredicts:
    """Predicts as a committee does."""

    committee: Committee

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Class probabilities (N, C)."""
        found: np.ndarray = self.committee.label(texts).labels.numpy()
        return found


@register("arm", "committee", help="the committee predicts the test rows, nothing is fine-tuned")
def committee(task: Task) -> CommitteePredicts:
    """The committee that `mixup` names, fitted on the training rows."""
    return CommitteePredicts(task.models.committee(task))
