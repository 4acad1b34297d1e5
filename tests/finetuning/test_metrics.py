from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup_hf.finetuning.metrics import brier_score, expected_calibration_error


def test_the_error_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    labels = np.array([0] * 5 + [1] * 5 + [1] * 6 + [0] * 4)
    # Half of ten right at 0.9, six of ten right at 0.6.
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.5 * 0.4)
    sure = np.eye(2)[labels]
    assert expected_calibration_error(sure, labels) == 0
    assert expected_calibration_error(1 - sure, labels) == 1


def test_brier_is_the_squared_distance() -> None:
    probabilities = np.array([[0.8, 0.2], [0.5, 0.5]])
    assert brier_score(probabilities, np.array([0, 1])) == pytest.approx((0.08 + 0.5) / 2)


@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 999))
def test_perfect_calibration_has_a_small_error(classes: int, bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), size=4000)
    labels = np.array([rng.choice(classes, p=row) for row in probabilities])
    error = expected_calibration_error(probabilities, labels, bins)
    assert 0 <= error < 0.06
