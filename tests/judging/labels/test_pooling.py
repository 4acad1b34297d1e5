"""Folds, weights of members, temperature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import softmax

from mixup_hf.data.targets import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL, read_targets
from mixup_hf.judging.labels import pooling
from mixup_hf.judging.labels.folds import assign_folds
from mixup_hf.judging.labels.pooling import MAX_WEIGHT, Scale, find_temperature, fit_weights


def labelled(
    count: int, problem_type: str = SINGLE_LABEL, classes: int = 3
) -> tuple[np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(0)
    if problem_type == SINGLE_LABEL:
        return np.eye(classes)[np.arange(count) % classes], rng
    if problem_type == MULTI_LABEL:
        return (rng.random((count, classes)) < 0.4).astype(float), rng
    return rng.normal(size=(count, classes)), rng


def test_a_class_is_in_the_training_rows_of_every_fold() -> None:
    targets = read_targets([0] * 20 + [1] * 2 + [2] * 7, 3, None)
    folds = assign_folds(targets, 5, seed=3)
    assert sorted(np.bincount(folds)) == [5, 6, 6, 6, 6]
    for fold in range(5):
        assert set(targets.groups[folds != fold]) == {0, 1, 2}
    assert (folds == assign_folds(targets, 5, seed=3)).all()
    assert (folds != assign_folds(targets, 5, seed=4)).any()


def test_no_fold_is_empty() -> None:
    assert sorted(assign_folds(read_targets([0, 1, 1], 2, None), 5, 0)) == [0, 1, 2]
    numbers = read_targets([0.5, 1.5, 2.5, 3.5], None, None)
    assert sorted(assign_folds(numbers, 2, 0)) == [0, 0, 1, 1]


def test_copies_of_a_text_share_a_fold() -> None:
    texts = [f"Text, {at % 10}!" if at < 10 else f"text {at % 10}" for at in range(40)]
    targets = read_targets([at % 2 for at in range(40)], 2, None)
    folds = assign_folds(targets, 5, 0, texts)
    assert all(len({*folds[at::10]}) == 1 for at in range(10))
    assert {*folds} == {*range(len({*folds}))} and len({*folds}) > 2
    different = [f"text {at}" for at in range(40)]
    assert (assign_folds(targets, 5, 0, different) == assign_folds(targets, 5, 0)).all()
    # Nothing else to hold out: the rows are spread as if they differed.
    assert len({*assign_folds(targets, 5, 0, ["same"] * 40)}) == 5


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_the_unit_of_a_regression_does_not_decide_the_weights(unit: float) -> None:
    values, rng = labelled(200, REGRESSION, 1)
    scores = [values + 0.1 * rng.normal(size=values.shape), rng.normal(size=values.shape)]
    scale = Scale(REGRESSION)
    weights = fit_weights(scale, scores, values)
    assert weights[0] > 0.9
    scaled = fit_weights(scale, [unit * each for each in scores], unit * values)
    np.testing.assert_allclose(scaled, weights, atol=1e-4)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_members_that_know_more_count_more(problem_type: str) -> None:
    values, rng = labelled(300, problem_type)
    scale = Scale(problem_type)
    good = 2 * values + rng.normal(size=values.shape)
    useless = rng.normal(size=values.shape)
    weights = fit_weights(scale, [good, useless], values)
    assert weights[0] > 0.3
    assert 0 <= weights[1] < 0.15
    pooled = weights[0] * good + weights[1] * useless
    assert scale.loss(pooled, values) < scale.loss(good + useless, values)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_the_slope_is_that_of_the_loss(problem_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values, rng = labelled(20, problem_type)
    scores = [rng.normal(size=values.shape) for _ in range(3)]
    checked = []

    def check(loss, start, **_):  # type: ignore[no-untyped-def]
        at = np.array([0.5, 1.0, 0.1])
        np.testing.assert_allclose(
            loss(at)[1], approx_fprime(at, lambda each: loss(each)[0]), atol=1e-5
        )
        checked.append(True)
        return type("Found", (), {"x": start})

    monkeypatch.setattr(pooling, "minimize", check)
    fit_weights(Scale(problem_type), scores, values)
    assert checked


def test_few_rows_decide_little() -> None:
    """Of two members that differ on one row of four, neither is dropped; of 400 rows, one is."""
    values, rng = labelled(4, classes=2)
    right = np.log(softmax(3 * values + 0.1 * rng.normal(size=values.shape), axis=1))
    wrong = right[:, ::-1]
    few = fit_weights(
        Scale(SINGLE_LABEL), [right, np.where([[1], [0], [0], [0]], wrong, right)], values
    )
    assert few.min() > 0.2
    assert few.max() < MAX_WEIGHT


def test_without_a_row_all_count_alike() -> None:
    nothing = np.zeros((0, 3))
    found = fit_weights(Scale(SINGLE_LABEL), [nothing, nothing], nothing)
    assert found.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL])
def test_the_temperature_brings_confidence_down_to_the_target(problem_type: str) -> None:
    _, rng = labelled(50)
    scale, scores = Scale(problem_type), 6 * rng.normal(size=(50, 3))
    assert scale.confidence(scale.predictions(scores)) > 0.85
    found = find_temperature(scale, scores, 0.7)
    confidence = scale.confidence(scale.predictions(scores / found))
    assert 0.699 < confidence <= 0.7
    assert find_temperature(scale, scores, 0.99) == 1.0


def test_scores_lead_back_to_predictions() -> None:
    single = np.array([[0.2, 0.8]])
    for problem_type in PROBLEM_TYPES:
        scale = Scale(problem_type)
        np.testing.assert_allclose(scale.predictions(scale.scores(single)), single)


def test_accuracy_in_each_task() -> None:
    values = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert Scale(SINGLE_LABEL).accuracy(np.array([[0.6, 0.4], [0.9, 0.1]]), values) == 0.5
    assert Scale(MULTI_LABEL).accuracy(np.array([[0.6, 0.4], [0.9, 0.1]]), values) == 0.5
    assert Scale(REGRESSION).accuracy(values, values) == 1.0
    assert Scale(REGRESSION).accuracy(1 - values, values) == 0.0
