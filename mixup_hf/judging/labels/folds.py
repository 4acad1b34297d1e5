"""Folds for predictions on rows that a member has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mixup_hf.data.targets import SINGLE_LABEL, Targets
from mixup_hf.judging.labels.types import Learner
from mixup_hf.runtime import counter_rng


def assign_folds(targets: Targets, max_folds: int, seed: int) -> np.ndarray:
    """The fold of each row (N): the rows of a class are spread over the folds.

    A class with at least two rows is in the training rows of every fold, however many folds there
    are, so a rare class need not lower their number.
    """
    count = len(targets.groups)
    rng = counter_rng(seed, max_folds)
    order = rng.permutation(count)
    if targets.problem_type == SINGLE_LABEL:
        order = order[np.argsort(targets.groups[order], kind="stable")]
    folds = np.empty(count, np.int64)
    folds[order] = np.arange(count) % min(max_folds, count)
    return folds


def predict_held_out(learner: Learner, texts: Sequence[str], folds: np.ndarray) -> Tensor:
    """Predictions (N, C) for every row by a model fitted without the row's fold."""
    parts = []
    for fold in range(int(folds.max()) + 1):
        rows = np.flatnonzero(folds == fold)
        predict = learner.fit(np.flatnonzero(folds != fold))
        parts.append((rows, predict([texts[row] for row in rows.tolist()])))
    result = torch.empty(len(texts), parts[0][1].shape[1])
    for rows, predictions in parts:
        result[torch.from_numpy(rows)] = predictions.float()
    return result
