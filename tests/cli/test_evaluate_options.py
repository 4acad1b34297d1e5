"""`mixup-hf evaluate`: an option is used or refused, never ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mixup_hf.cli.main import app
from mixup_hf.cli.pages import experiment
from mixup_hf.config.load import load_config
from mixup_hf.errors import MixupError
from mixup_hf.evaluation.experiment.config import ExperimentConfig


def run(*words: object) -> None:
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    if result.exception is not None:
        raise result.exception


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text("sets: {bbc: {dataset: bbc_headlines}}\noutput_dir: here\n")
    return path


def test_options_override_the_settings_of_an_experiment(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(experiment, "run", lambda path, words: seen.append((path, words)))
    run(config, "--rows", 40, "--aligner", "mine", "--output-dir", "there", "--test-rows", 9)
    settings = load_config(ExperimentConfig, *seen[0])
    assert (settings.rows, settings.output_dir, settings.test_rows) == (40, "there", 9)
    assert settings.mixup.aligner == "mine"


@pytest.mark.parametrize(
    "words",
    [("--seed", "3"), ("--weights", "uniform"), ("--num-rows", "9"), ("--structure",)],
)
def test_other_options_are_refused_beside_a_config(config: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(MixupError, match=f"{words[0]} cannot be used with a CONFIG"):
        run(config, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--test-rows", "9"), "`--test-rows` belongs to an experiment"),
        (("--perplexity", "x"), "--perplexity is used with --quality only"),
        (("--generations", "3"), "--generations is used with --structure only"),
        (("--weights", "nonsense"), "weights"),
        (("--output-dir", "/proc/x"), "must be writable"),
    ],
)
def test_a_measurement_refuses_what_it_does_not_use(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    data = tmp_path / "x.csv"
    data.write_text("text,label\na,b\n")
    with pytest.raises(MixupError, match=message):
        run("--data", data, "--intrusion", *words)


@pytest.mark.parametrize("how", [("--canaries", "3"), ("--own-texts", "off")])
def test_an_audit_of_rows_refuses_how_to_make_rows(tmp_path: Path, how: tuple[str, str]) -> None:
    data = tmp_path / "x.csv"
    data.write_text("text,label\na,b\n")
    words = ["audit", "--data", data, "--rows", data, "--holdout", data, *how]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert f"{how[0]} cannot be used with --rows" in str(result.exception)


@pytest.mark.parametrize("read", ["--data", "--rows", "--holdout"])
def test_an_audit_does_not_replace_what_it_reads(tmp_path: Path, read: str) -> None:
    files = {"--data": "train.csv", "--rows": "rows.csv", "--holdout": "held.csv"}
    for name in files.values():
        (tmp_path / name).write_text("text,label\na,b\n")
    words = [word for option, name in files.items() for word in (option, tmp_path / name)]
    result = CliRunner().invoke(
        app, [str(word) for word in ("audit", *words, "--output", tmp_path / files[read])]
    )
    assert f"be another file than {read}" in str(result.exception)
    assert (tmp_path / files[read]).read_text() == "text,label\na,b\n"


def test_an_audit_of_too_few_texts_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    data = tmp_path / "x.csv"
    data.write_text("text,label\n" + "".join(f"text {at},{at % 2}\n" for at in range(60)))
    for words, name in (
        (["--num-samples", 8], "num_samples"),
        (["--rows", tmp_path / "few.jsonl", "--holdout", data], "rows"),
    ):
        (tmp_path / "few.jsonl").write_text('{"text": "a", "soft_label": {"0": 1}, "shares": [1]}')
        command = ["audit", "--data", data, "--aligner", "no/such-aligner", *words]
        result = CliRunner().invoke(app, list(map(str, command)))
        assert f"`{name}` must hold at least 20 texts" in str(result.exception)
