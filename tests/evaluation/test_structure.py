"""Structure: covariances and distances are those of the definitions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_inverter, make_rows
from typer.testing import CliRunner

from mixup_hf.cli.main import app
from mixup_hf.evaluation.structure import compare, energy_test, measure_structure


def normal(count: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return scale * torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_same_distribution_is_not_told_apart() -> None:
    found = compare(normal(1200, 0), normal(800, 1))
    assert found.variance_ratio == pytest.approx(1, abs=0.1)
    assert found.frobenius < 0.25
    assert found.p_value > 0.05


@pytest.mark.parametrize(("scale", "shift"), [(0.6, 0.0), (1.0, 0.5)])
def test_another_distribution_is(scale: float, shift: float) -> None:
    found = compare(normal(300, 0), normal(200, 1, scale, shift))
    assert found.variance_ratio == pytest.approx(scale**2, abs=0.1)
    assert found.p_value <= 0.005
    if scale != 1:
        assert found.frobenius == pytest.approx(1 - scale**2, abs=0.1)


def test_energy_is_what_the_definition_says() -> None:
    first, second = normal(7, 0), normal(5, 1, shift=1.0)

    def mean_distance(one: torch.Tensor, two: torch.Tensor) -> float:
        return float(np.mean([[float((a - b).norm()) for b in two] for a in one]))

    expected = 2 * mean_distance(first, second)
    expected -= mean_distance(first, first) + mean_distance(second, second)
    assert energy_test(first, second)[0] == pytest.approx(expected, rel=1e-5)


def test_p_values_of_equal_samples_are_even() -> None:
    samples = [(normal(15, 2 * seed), normal(15, 2 * seed + 1)) for seed in range(60)]
    values = np.array([energy_test(*pair, permutations=99)[1] for pair in samples])
    assert 0.35 < values.mean() < 0.65
    assert (values <= 0.1).mean() < 0.25


def test_mixes_of_a_class_have_the_variance_of_theory() -> None:
    texts, labels = make_rows(48, num_labels=2)
    inverter = make_inverter()
    reports = {
        weights: measure_structure(
            inverter, texts, labels, ["a", "b"], weights, num_rows=400, generations=2
        )
        for weights in ("fixed:0.5", "epbeta:eps=0.3")
    }
    for weights, expected in (("fixed:0.5", 0.5), ("epbeta:eps=0.3", 1.0)):
        report = reports[weights]
        assert report.expected == pytest.approx(expected)
        assert set(report.before) == set(report.after) == {"a", "b"}
        # Partners are other rows, drawn without the first: parents are not quite independent.
        assert report.curve_before[0] == pytest.approx(expected, abs=0.12)
        assert len(report.curve_before) == len(report.curve_after) == 2
    assert reports["fixed:0.5"].curve_before[1] == pytest.approx(0.25, abs=0.06)
    assert reports["epbeta:eps=0.3"].curve_before[1] == pytest.approx(1, abs=0.25)


def test_a_class_without_a_covariance_is_refused() -> None:
    with pytest.raises(ValueError, match="at least three rows of every class, but got .'b'"):
        measure_structure(make_inverter(), ["x"] * 5, [0, 0, 0, 1, 1], ["a", "b"], "uniform")


def test_the_command_prints_and_writes(tmp_path: Path, saved_aligner: Callable[..., Path]) -> None:
    texts, labels = make_rows(24)
    data = tmp_path / "rows.jsonl"
    rows = [{"text": text, "label": str(label)} for text, label in zip(texts, labels, strict=True)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["evaluate", "--structure", "--data", data, "--num-rows", 12, "--generations", 2]
    words += ["--aligner", saved_aligner(), "--output-dir", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "100.0% of the variance" in result.output
    content = json.loads((tmp_path / "out" / "structure.json").read_text())
    found = [each["weights"] for each in content["reports"]]
    assert found == ["beta:0.4", "uniform", "epbeta:eps=0.3"]
    assert len(content["reports"][0]["curve_after"]) == 2
    assert (tmp_path / "out" / "structure.png").stat().st_size > 1000
    assert CliRunner().invoke(app, ["evaluate", "--data", str(data)]).exit_code != 0


def test_intrusion_is_reported_for_one_class_and_for_two(
    tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    texts, labels = make_rows(48)
    data = tmp_path / "rows.jsonl"
    rows = [{"text": text, "label": str(label)} for text, label in zip(texts, labels, strict=True)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["evaluate", "--intrusion", "--data", data, "--num-rows", 12]
    words += ["--aligner", saved_aligner(), "--output-dir", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "same_class" in result.output
    assert "third_class" in result.output
    content = json.loads((tmp_path / "out" / "intrusion.json").read_text())
    for pairing in ("same_class", "cross_class"):
        assert content[pairing]["overall"]["of"] == 12
        assert sum(rate["of"] for rate in content[pairing]["by_lam"].values()) == 12
        assert content[pairing]["mitigations"] == {"none": 12}
    assert (tmp_path / "out" / "intrusion.png").stat().st_size > 1000


def test_bad_weights_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "a", "label": "x"}\n')
    words = ["evaluate", "--intrusion", "--data", str(data), "--weights", "nonsense"]
    result = CliRunner().invoke(app, [*words, "--aligner", str(tmp_path / "nowhere")])
    assert "`weights` must be one of" in str(result.exception)
