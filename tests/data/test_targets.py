"""What labels are taken for."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_inverter, make_rows

from mixup_hf import InversedMixup, MixupConfig
from mixup_hf.data.label_checks import warn_conflicts
from mixup_hf.data.targets import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    like,
    read_targets,
)
from mixup_hf.errors import InvalidInput


@pytest.mark.parametrize(
    ("labels", "problem", "values", "groups", "names"),
    [
        ([1, 0, 1], SINGLE_LABEL, [[0, 1], [1, 0], [0, 1]], [1, 0, 1], ("0", "1")),
        (["b", "a"], SINGLE_LABEL, [[0, 1], [1, 0]], [1, 0], ("a", "b")),
        (["10", "2"], SINGLE_LABEL, [[0, 1], [1, 0]], [1, 0], ("2", "10")),
        ([[1, 0], [1, 1], [1, 0]], MULTI_LABEL, [[1, 0], [1, 1], [1, 0]], [0, 1, 0], ("0", "1")),
        ([np.array([0.0, 1.0]), np.array([0.0, 0.0])], MULTI_LABEL, [[0, 1], [0, 0]], [1, 0], None),
        ([["red"], [], ["blue", "red"]], MULTI_LABEL, [[0, 1], [0, 0], [1, 1]], [1, 0, 2], None),
        ([0.5, -1.0], REGRESSION, [[0.5], [-1.0]], [0.5, -1.0], ("value",)),
    ],
)
def test_labels_are_read_for_what_they_are(
    labels: Any, problem: str, values: Any, groups: Any, names: Any
) -> None:
    targets = read_targets(labels, None, None)
    assert targets.problem_type == problem
    assert targets.values.tolist() == values
    assert targets.groups.tolist() == groups
    if names is not None:
        assert targets.names == names


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([[0, 1], [1, 0, 1]], {}, "2 to 3 values.*single tokens cannot be mixed"),
        ([[0, 2], [1, 0]], {}, "hold only 0 and 1"),
        ([["a"], ["c"]], {"label_names": ["a", "b"]}, r"be among label_names .*'c'"),
        ([[0, 1], [1, 0]], {"num_labels": 3}, r"equal the number of classes \(2\)"),
        ([0.5, 1.5], {"num_labels": 3}, "be 1 for labels that are floats"),
        ([0.5, float("inf")], {}, "be finite"),
        ([0.5, float("nan")], {}, r"missing \(None or nan\) in 1 of 2 rows, the first is row 1"),
        (["a", None, "b"], {}, "in 1 of 3 rows, the first is row 1"),
        ([2.0, 0.0, 1.0], {}, r"whole numbers \(0.0, 1.0, 2.0.*astype\(int\).*'regression'"),
        ([0, 1], {"problem_type": "multi_label_classification"}, "must be lists"),
        (["a", "b"], {"problem_type": "regression"}, "be numbers for regression, but got 'a'"),
        ([0, 1], {"problem_type": "classes"}, "`problem_type` must be one of"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    labels: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_targets(labels, **({"num_labels": None, "label_names": None} | settings))


def test_a_stated_problem_type_decides_what_whole_floats_are() -> None:
    numbers = read_targets([2.0, 0.0], None, None, problem_type=REGRESSION)
    assert (numbers.problem_type, numbers.values.tolist()) == (REGRESSION, [[2.0], [0.0]])
    assert read_targets([2, 0], None, None, problem_type=REGRESSION).names == ("value",)
    classes = read_targets([1.0, 0.0], None, None, problem_type=SINGLE_LABEL)
    assert (classes.problem_type, classes.groups.tolist()) == (SINGLE_LABEL, [1, 0])


@pytest.mark.parametrize(
    ("labels", "others", "values"),
    [
        (["b", "a"], ["a", "a"], [[1, 0], [1, 0]]),
        ([[1, 0], [0, 1]], [[1, 1]], [[1, 1]]),
        ([["x"], ["y"]], [[]], [[0, 0]]),
        ([0.5, 1.5], [2], [[2]]),
    ],
)
def test_labels_of_other_rows_are_read_alike(labels: Any, others: Any, values: Any) -> None:
    assert like(read_targets(labels, None, None), others).tolist() == values


@pytest.mark.parametrize(
    ("labels", "others"),
    [(["b", "a"], ["c"]), ([0, 1], [2]), ([[1, 0], [0, 1]], [[1, 0, 0]]), ([["x"], ["y"]], ["x"])],
)
def test_foreign_labels_of_other_rows_are_refused(labels: Any, others: Any) -> None:
    with pytest.raises(ValueError, match="labels"):
        like(read_targets(labels, None, None), others)


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (["politics ", "politics", "sport"], (None, None), "'politics' and 'politics '"),
        (["Sport", "sport"], (None, None), "differ only in case, spaces"),
        ([0, 5, 9] * 5, (None, None), "10 classes are assumed.*class 1, 2, 3, 4, 6, 7, 8"),
        ([0, 5, 9] * 5, (10, None), None),
        (["a", "b"], (None, None), None),
    ],
)
def test_doubtful_classes_are_warned_of(
    labels: Any, settings: Any, message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    read_targets(labels, *settings)
    assert bool(caplog.text) == (message is not None)
    assert message is None or re.search(message, caplog.text)


def test_a_text_with_two_labels_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    warn_conflicts("rows.csv", ["a", "b", "a"], [0, 1, 0])
    assert not caplog.text
    warn_conflicts("rows.csv", ["a", "b", "a"], [0, 1, 1])
    assert "rows.csv: 1 texts occur with more than one label" in caplog.text


def make(labels: Any, **settings: Any) -> InversedMixup:
    texts, _ = make_rows(12)
    config = MixupConfig(max_new_tokens=6, chunk_size=4, **settings)
    return InversedMixup(make_inverter(), texts, labels, config=config)


def test_several_labels_are_mixed_like_one() -> None:
    labels = [[row % 2, 1, row % 3 == 0] for row in range(12)]
    hot = torch.tensor([[float(value) for value in row] for row in labels])
    for row in make([list(map(int, each)) for each in labels], pairing="cross_class").generate(8):
        first, second = row.parents
        assert labels[first] != labels[second]
        expected = row.lam * hot[first] + (1 - row.lam) * hot[second]
        assert row.label == pytest.approx(expected.tolist(), abs=1e-6)
        assert row.mitigation == "none"  # judges speak of one class a row


def test_numbers_are_mixed_beyond_the_parents_and_near_ones_are_paired() -> None:
    labels = [0.1 * row for row in range(12)]
    mixup = make(labels, weights="epbeta:eps=0.5")
    rows = mixup.generate(24)
    for row in rows:
        first, second = (labels[parent] for parent in row.parents)
        assert row.label[0] == pytest.approx(row.lam * first + (1 - row.lam) * second, abs=1e-5)
    assert mixup.producer.plan.pairing == "near_target"
    apart = [abs(labels[row.parents[0]] - labels[row.parents[1]]) for row in rows]
    assert np.mean(apart) < 0.25  # random pairs would be 0.43 apart
    assert make(labels, pairing="random").producer.plan.pairing == "random"
    with pytest.raises(ValueError, match="'local' needs classes, but the labels are numbers"):
        make(labels, pairing="local")


def test_numbers_in_a_test_file_are_names_where_the_training_labels_were_names() -> None:
    targets = read_targets(["1", "2", "3", "neutral"], None, None)
    assert like(targets, [3, 1]).argmax(1).tolist() == [2, 0]
    with pytest.raises(InvalidInput, match="4"):
        like(targets, [4])
    assert like(read_targets([0, 1, 2, 2], None, None), [2, 1]).argmax(1).tolist() == [2, 1]
