"""Our metrics as `evaluate` loads them: by path, with no network, and in company."""

from __future__ import annotations

import evaluate
import numpy as np
import pytest

from mixup_hf.evaluation.metrics import METRICS, load_metric
from mixup_hf.evaluation.ratio_recovery import lam_recovery
from mixup_hf.finetuning.metrics import brier_score, expected_calibration_error
from mixup_hf.intervals import wilson

PROBABILITIES = [[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]]
LABELS = [0, 2, 2]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a metric asked for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_loads_and_says_what_it_is(name: str) -> None:
    metric = load_metric(name)
    assert metric.name == name
    assert len(metric.description) > 30 and metric.citation and metric.inputs_description


def test_calibration_is_what_the_functions_say() -> None:
    given = np.array(PROBABILITIES), np.array(LABELS)
    both = evaluate.combine([load_metric("brier_score"), load_metric("expected_calibration_error")])
    assert both.compute(predictions=PROBABILITIES, references=LABELS) == pytest.approx(
        {
            "brier_score": brier_score(*given),
            "expected_calibration_error": expected_calibration_error(*given),
        }
    )
    one_bin = load_metric("expected_calibration_error").compute(
        predictions=PROBABILITIES, references=LABELS, num_bins=1
    )
    assert one_bin["expected_calibration_error"] == pytest.approx(abs(2 / 3 - 1.6 / 3))


def test_batches_are_put_together() -> None:
    metric = load_metric("intrusion_rate")
    for doubtful in (True, False, False, False):
        metric.add_batch(predictions=[doubtful])
    rate = wilson(1, 4)
    found = metric.compute()
    assert found == pytest.approx({"intrusion_rate": 0.25, "low": rate.low, "high": rate.high})


def test_recovery_takes_what_was_found_and_what_was_asked() -> None:
    asked, found = np.array([0.0, 0.25, 0.5, 1.0]), np.array([0.1, 0.3, 0.4, 0.7])
    measured = load_metric("lambda_recovery").compute(predictions=found, references=asked)
    assert measured == pytest.approx(lam_recovery(asked, found))
    assert measured["slope"] < 1  # found against asked, not the other way round


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="lambda_recovery.*'bleu'"):
        load_metric("bleu")
