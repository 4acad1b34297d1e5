"""Calibration of a classifier: does it know how sure it may be?"""

from __future__ import annotations

import numpy as np

from mixup_hf import errors


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy (Guo et al. 2017, arXiv 1706.04599).

    Rows are put into bins of equal width by the probability of the predicted class; each bin's gap
    counts by how many rows it holds.

    Args:
        probabilities: (N, C).
        labels: Class indices (N,).
        num_bins: How many bins.
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
    """Mean squared distance (0 to 2) of probabilities (N, C) to the one-hot labels (N,)."""
    targets = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - targets).sum(axis=1).mean())
