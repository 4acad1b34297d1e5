"""`TextSMOTE`, also by the checks that imbalanced-learn has for its own samplers."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from imblearn.pipeline import make_pipeline
from imblearn.utils import estimator_checks as checks
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from tiny import WORDS, make_inverter

import mixup_hf.imblearn
from mixup_hf import errors
from mixup_hf.imblearn import TextSMOTE
from mixup_hf.inverter.model import Inverter

SETTINGS = {"max_new_tokens": 4, "on_unreadable": "off", "max_redraws": 1, "reuse": False}


@pytest.fixture(scope="module")
def inverter() -> Inverter:
    return make_inverter()


@pytest.fixture
def sampler(inverter: Inverter) -> TextSMOTE:
    return TextSMOTE(aligner=inverter, random_state=0, settings=SETTINGS)


def table(*counts: int) -> tuple[list[str], list[str]]:
    """Rows of classes "a", "b", ...: texts that are all different."""
    rng = np.random.default_rng(0)
    labels = [name for name, count in zip("abc", counts, strict=False) for _ in range(count)]
    return [" ".join(rng.choice(WORDS, 5)) for _ in labels], labels


def test_minority_classes_grow_and_given_rows_stay(sampler: TextSMOTE) -> None:
    texts, labels = table(9, 4, 1)
    more, classes = sampler.fit_resample(texts, labels)
    assert isinstance(more, list) and isinstance(classes, list)
    assert more[:14] == texts and classes[:14] == labels
    assert Counter(classes) == {"a": 9, "b": 9, "c": 9}
    assert sampler.sampling_strategy_ == {"b": 5, "c": 8}
    assert [row.text for row in sampler.generated_] == more[14:]
    for row, label in zip(sampler.generated_, classes[14:], strict=True):
        assert {labels[parent] for parent in row.parents} == {label}
    assert clone(sampler).fit_resample(texts, labels)[0] == more
    assert clone(sampler).set_params(random_state=1).fit_resample(texts, labels)[0] != more


def test_pandas_comes_back_as_pandas(sampler: TextSMOTE) -> None:
    texts, labels = table(5, 2)
    frame = pd.DataFrame({"text": texts, "label": labels})
    series, classes = sampler.fit_resample(frame["text"], frame["label"])
    assert isinstance(series, pd.Series) and (series.name, classes.name) == ("text", "label")
    assert classes.value_counts().to_dict() == {"a": 5, "b": 5}
    column, _ = sampler.fit_resample(frame[["text"]], frame["label"])
    assert isinstance(column, pd.DataFrame) and column["text"].tolist() == series.tolist()
    assert sampler.feature_names_in_.tolist() == ["text"]


@pytest.mark.parametrize(
    "strategy, expected",
    [("minority", {"a": 6, "b": 4, "c": 6}), ({"b": 5}, {"a": 6, "b": 5, "c": 2})],
)
def test_strategies_are_those_of_imbalanced_learn(
    sampler: TextSMOTE, strategy: Any, expected: dict[str, int]
) -> None:
    _, classes = sampler.set_params(sampling_strategy=strategy).fit_resample(*table(6, 4, 2))
    assert Counter(classes) == expected


def test_balanced_classes_stay_as_they_are(sampler: TextSMOTE) -> None:
    texts, labels = table(3, 3)
    assert sampler.fit_resample(texts, labels) == (texts, labels)
    assert sampler.generated_ == []


def test_it_is_a_step_of_a_pipeline(sampler: TextSMOTE) -> None:
    pipeline = make_pipeline(sampler, CountVectorizer(), LogisticRegression())
    texts, labels = table(6, 2)
    assert set(pipeline.fit(texts, labels).predict(texts)) <= {"a", "b"}


def test_it_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(TextSMOTE(num_neighbors=3))).num_neighbors == 3


@pytest.mark.parametrize(
    "texts, labels, message",
    [
        ([["a", "b"]] * 3, [0, 1, 1], "`X` must be one column of texts"),
        ([1, 2, 3], [0, 1, 1], r"`X\[0\]` must be a string"),
        (["a", "b", " "], [0, 1, 1], "no empty or whitespace-only text"),
        (["a", "b"], [0, 1, 1], "one class for each of 2 texts"),
    ],
)
def test_what_is_no_text_is_refused(
    sampler: TextSMOTE, texts: list[Any], labels: list[int], message: str
) -> None:
    with pytest.raises(errors.MixupError, match=message):
        sampler.fit_resample(texts, labels)


def test_settings_that_it_decides_are_refused(sampler: TextSMOTE) -> None:
    sampler.set_params(settings={"seed": 3})
    with pytest.raises(errors.InvalidInput, match="leave out 'seed'"):
        sampler.fit_resample(*table(3, 2))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'SMOTE'"):
        _ = mixup_hf.imblearn.SMOTE


@pytest.mark.parametrize("wrong", [{"pairing": "random"}, {"intrusion": "local"}])
def test_settings_that_would_mix_classes_are_refused(inverter: Inverter, wrong: Any) -> None:
    sampler = TextSMOTE(aligner=inverter, random_state=0, settings=SETTINGS | wrong)
    with pytest.raises(errors.InvalidInput, match=next(iter(wrong))):
        sampler.fit_resample(*table(9, 4))


def test_copies_among_the_new_rows_are_counted(
    sampler: TextSMOTE, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Inverter, "invert", lambda self, mixes, **_: ["!"] * len(mixes))
    sampler.fit_resample(*table(9, 4))
    assert "5 of 5 new rows are copies" in caplog.text


# Of imbalanced-learn's checks, those that do not need numbers for features. The checks draw their
# own numeric table; texts take its place.
OF_TEXT = [
    checks.check_target_type,
    checks.check_samplers_one_label,
    checks.check_samplers_fit_resample,
    checks.check_samplers_sampling_strategy_fit_resample,
    checks.check_samplers_sample_indices,
    checks.check_samplers_2d_target,
    checks.check_param_validation,
    checks.check_samplers_list,
    checks.check_samplers_multiclass_ova,
    checks.check_samplers_pandas,
    checks.check_sampler_get_feature_names_out,
    checks.check_sampler_get_feature_names_out_pandas,
]


@pytest.mark.parametrize("check", OF_TEXT, ids=lambda check: check.__name__)
def test_checks_of_imbalanced_learn(
    sampler: TextSMOTE, monkeypatch: pytest.MonkeyPatch, check: Any
) -> None:
    texts, labels = table(4, 6, 12)
    # One column, for the check with pandas names the columns of a table.
    column = np.array(texts, dtype=object)[:, None]
    rows = column, np.array([ord(label) - ord("a") for label in labels])
    monkeypatch.setattr(checks, "sample_dataset_generator", lambda: rows)
    monkeypatch.setattr(checks, "assert_allclose", np.testing.assert_array_equal)  # texts, too
    monkeypatch.setattr(Inverter, "invert", lambda self, mixes, **_: ["big film"] * len(mixes))
    check("TextSMOTE", sampler)


def test_check_of_imbalanced_learn_for_strings(
    sampler: TextSMOTE, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It expects that all strings of the result are among those given."""
    monkeypatch.setattr(Inverter, "invert", lambda self, mixes, **_: ["A"] * len(mixes))
    checks.check_samplers_string("TextSMOTE", sampler)
