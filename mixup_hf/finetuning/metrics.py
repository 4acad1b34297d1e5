"""Metrics of a fine-tuned model: accuracy, F1, calibration, errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mixup_hf import errors
from mixup_hf.data.targets import MULTI_LABEL, REGRESSION, SINGLE_LABEL

# What `metrics.json` reports of the test rows.
REPORTED: dict[str, tuple[str, ...]] = {
    SINGLE_LABEL: (
        "test_accuracy",
        "test_macro_f1",
        "test_minority_recall",
        "test_loss",
        "test_ece",
        "test_brier",
    ),
    MULTI_LABEL: ("test_micro_f1", "test_macro_f1", "test_exact_match", "test_loss"),
    REGRESSION: ("test_mae", "test_rmse", "test_spearman", "test_loss"),
}
# The metric of the validation rows that chooses the checkpoint.
CHOOSES = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "micro_f1", REGRESSION: "rmse"}
SMALLER_IS_BETTER = {"rmse", "mae", "loss"}


def metrics_of(
    problem_type: str, training_counts: np.ndarray | None = None
) -> Callable[[Any], dict[str, float]]:
    """The `compute_metrics` of a Trainer.

    Args:
        problem_type: One of `PROBLEM_TYPES`.
        training_counts: Training rows of each class (C,): which class is the rarest. By default,
            and where all have as many, that of the rows measured.
    """
    kinds: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, float]]] = {
        SINGLE_LABEL: partial(_single_label, training_counts=training_counts),
        MULTI_LABEL: _multi_label,
        REGRESSION: _regression,
    }
    measure = kinds[problem_type]
    return lambda prediction: measure(
        np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    )


def _single_label(
    logits: np.ndarray, labels: np.ndarray, training_counts: np.ndarray | None = None
) -> dict[str, float]:
    """Of logits (N, C) and class indices (N,)."""
    from scipy.special import softmax
    from sklearn.metrics import accuracy_score, f1_score

    chosen, probabilities = np.argmax(logits, axis=-1), softmax(logits, axis=-1)
    return {
        "ece": expected_calibration_error(probabilities, labels),
        "brier": brier_score(probabilities, labels),
        "accuracy": float(accuracy_score(labels, chosen)),
        "macro_f1": float(f1_score(labels, chosen, average="macro")),
        "minority_recall": _minority_recall(labels, chosen, training_counts),
    }


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over rows, of logits (N, C) and class indices (N,)."""
    return float(row_losses(logits, labels).mean())


def row_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each row (N,), of logits (N, C) and class indices (N,)."""
    from scipy.special import log_softmax

    logs = log_softmax(logits.astype(np.float64), axis=-1)
    losses: np.ndarray = -logs[np.arange(len(labels)), labels]
    return losses


def _multi_label(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Of logits (N, C) and multi-hot labels (N, C), with a threshold of probability 0.5."""
    from sklearn.metrics import f1_score

    chosen, true = logits > 0, labels > 0.5
    return {
        "micro_f1": float(f1_score(true, chosen, average="micro", zero_division=0)),
        "macro_f1": float(f1_score(true, chosen, average="macro", zero_division=0)),
        "exact_match": float((chosen == true).all(axis=1).mean()),
    }


def _regression(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Of predictions (N, 1) and numbers (N,); the rank correlation of a constant is 0."""
    from scipy.stats import spearmanr

    predicted, labels = predicted.reshape(-1), labels.reshape(-1)
    gaps = predicted - labels
    constant = np.ptp(predicted) == 0 or np.ptp(labels) == 0
    return {
        "mae": float(np.abs(gaps).mean()),
        "rmse": float(np.sqrt(np.square(gaps).mean())),
        "spearman": 0.0 if constant else float(spearmanr(predicted, labels).statistic),
    }


def _minority_recall(
    labels: np.ndarray, chosen: np.ndarray, training_counts: np.ndarray | None
) -> float:
    """Recall of the rarest class; among equally rare classes, the lowest."""
    present, counts = np.unique(labels, return_counts=True)
    if training_counts is not None and len({*training_counts[present].tolist()}) > 1:
        counts = training_counts[present]
    rarest = present[counts == counts.min()]
    return float(min((chosen[labels == each] == each).mean() for each in rarest))


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy (Guo et al. 2017, arXiv 1706.04599).

    Rows are binned into intervals of equal width by the probability of the predicted class; each
    bin's gap is weighted by its number of rows.

    Args:
        probabilities: Class probabilities (N, C).
        labels: Class indices (N,).
        num_bins: Number of bins.
    """
    errors.at_least("num_bins", num_bins, 1)
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    correct = predicted == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gaps = [
        (bins == each).mean() * abs(correct[bins == each].mean() - confidence[bins == each].mean())
        for each in np.unique(bins)
    ]
    return float(sum(gaps))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance (0 to 2) of probabilities (N, C) to one-hot labels (N,)."""
    targets = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - targets).sum(axis=1).mean())
