from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup_hf.data.targets import SINGLE_LABEL
from mixup_hf.finetuning.metrics import brier_score, expected_calibration_error, metrics_of


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


def test_the_rarest_class_is_that_of_the_training_rows() -> None:
    labels = np.array([0] * 4 + [1] * 10 + [2] * 10)
    logits = np.eye(3)[labels]
    logits[labels == 1] = np.eye(3)[0]  # class 1 is never found
    measured = SimpleNamespace(predictions=logits, label_ids=labels)

    def recall(counts: np.ndarray | None) -> float:
        return metrics_of(SINGLE_LABEL, counts)(measured)["minority_recall"]

    assert recall(None) == recall(np.array([5, 5, 5])) == 1
    assert recall(np.array([50, 5, 50])) == recall(np.array([50, 5, 5])) == 0
    assert recall(np.array([50, 50, 5])) == 1


def test_regression_is_measured_by_its_errors_and_ranks() -> None:
    predicted = SimpleNamespace(
        predictions=np.array([[1.0], [2.0], [5.0]]), label_ids=np.array([1.0, 3.0, 3.5])
    )
    found = metrics_of("regression")(predicted)
    assert found["mae"] == pytest.approx(2.5 / 3)
    assert found["rmse"] == pytest.approx(((0 + 1 + 1.5**2) / 3) ** 0.5)
    assert found["spearman"] == pytest.approx(1.0)
    flat = SimpleNamespace(predictions=np.ones((3, 1)), label_ids=predicted.label_ids)
    assert metrics_of("regression")(flat)["spearman"] == 0


def test_several_labels_are_measured_by_f1_and_whole_rows() -> None:
    labels = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    logits = np.array([[2.0, -1.0], [3.0, -2.0], [-1.0, -1.0]])
    found = metrics_of("multi_label_classification")(
        SimpleNamespace(predictions=logits, label_ids=labels)
    )
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert found["macro_f1"] == pytest.approx(0.5)
