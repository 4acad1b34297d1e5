"""Folds for predictions on rows that a member has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mixup_hf.data.targets import SINGLE_LABEL, Targets
from mixup_hf.judging.labels.types import LabelInputs, Learner
from mixup_hf.judging.leaks import first_rows
from mixup_hf.runtime import counter_rng


def assign_folds(
    targets: Targets, max_folds: int, seed: int, texts: Sequence[str] = ()
) -> np.ndarray:
    """The fold of each row (N): the rows of a class are spread over the folds.

    A class with at least two rows is in the training rows of every fold, however many folds there
    are, so a rare class need not lower their number. Rows with the same text are in one fold: a
    copy among the training rows would give the held-out one away.

    Args:
        targets: The labels of the rows (N).
        max_folds: Number of folds, where there are as many rows.
        seed: Seed of the order.
        texts: The rows' texts (N). Default: all differ.
    """
    count = len(targets.groups)
    rng = counter_rng(seed, max_folds)
    order = rng.permutation(count)
    if targets.problem_type == SINGLE_LABEL:
        order = order[np.argsort(targets.groups[order], kind="stable")]
    folds = np.empty(count, np.int64)
    folds[order] = np.arange(count) % min(max_folds, count)
    together = folds[first_rows(texts)] if len(texts) else folds
    kept, joined = np.unique(together, return_inverse=True)
    return joined if len(kept) > 1 else folds


def predict_held_out(learner: Learner, inputs: LabelInputs, max_folds: int) -> Tensor:
    """Predictions (N, C) for every row by a model fitted without the row's fold."""
    texts = inputs.texts
    most = min(max_folds, learner.max_folds)
    folds = assign_folds(inputs.targets, most, inputs.seed, texts)
    parts = []
    for fold in range(int(folds.max()) + 1):
        rows = np.flatnonzero(folds == fold)
        predict = learner.fit(np.flatnonzero(folds != fold))
        parts.append((rows, predict([texts[row] for row in rows.tolist()])))
    result = torch.empty(len(texts), parts[0][1].shape[1])
    for rows, predictions in parts:
        result[torch.from_numpy(rows)] = predictions.float()
    return result
