"""One section about many runs."""

from __future__ import annotations

import json
from pathlib import Path

from experiment_data import made
from typer.testing import CliRunner

from mixup_hf.cli import main as cli
from mixup_hf.config import DataConfig
from mixup_hf.evaluation.experiment.config import ExperimentConfig
from mixup_hf.evaluation.experiment.runner import Job, Results


def write_runs(folder: Path, arms: dict[str, float]) -> str:
    config = ExperimentConfig(
        sets=dict.fromkeys("ab", DataConfig(dataset="bbc_headlines")), output_dir=str(folder)
    )
    results = Results(config)
    for data in "ab":
        for seed in range(4):
            for arm, accuracy in arms.items():
                took = {"cpu_seconds": 450.0, "train_accuracy": 1.0}
                results.append(made(Job(data, 10, seed, arm), accuracy, **took))
    return str(results.file)


def test_files_of_runs_are_one_section_and_a_plot(tmp_path: Path) -> None:
    one = write_runs(tmp_path / "one", {"oversample": 0.5, "default": 0.7})
    other = write_runs(tmp_path / "other", {"setfit": 0.6})
    plot = tmp_path / "effect.png"
    result = CliRunner().invoke(cli.app, ["compare", one, other, "--plot", str(plot)])
    assert result.exception is None, result.exception
    text = result.output
    assert text.startswith("## Does it help?\n\nPrimary contrast: `default` against `setfit`")
    assert "accuracy +0.100 [+0.100, +0.100], p = 0.008" in text
    assert "| default | 8 | +0.200 [" in text  # against the baseline, over all sets
    assert "| arm | a, 10 | b, 10 | seconds |" in text and "| setfit | 0.600 | 0.600 | 2 |" in text
    assert (
        "24 runs, 3.0 core-hours. Training rows predicted correctly after training: 100.0%" in text
    )
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_contrast_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    one = write_runs(tmp_path / "one", {"oversample": 0.5})
    text = CliRunner().invoke(cli.app, ["compare", one]).output
    assert "fewer than two pairs of runs so far" in text
    missing = CliRunner().invoke(cli.app, ["compare", "none.jsonl"])
    assert "There is no file 'none.jsonl'" in str(missing.exception)
    bad = CliRunner().invoke(cli.app, ["compare", one, "--metric", "speed"])
    assert "`metric` must be one of" in str(bad.exception)


def test_misspelt_arms_and_runs_of_two_experiments_are_refused(tmp_path: Path) -> None:
    one = write_runs(tmp_path / "one", {"oversample": 0.5, "default": 0.7})
    for option in ("--arm", "--baseline"):
        bad = CliRunner().invoke(cli.app, ["compare", one, option, "defualt"])
        assert f"`{option}` must be one of 'default', 'oversample'" in str(bad.exception)
    other = write_runs(tmp_path / "other", {"default": 0.9})
    text = Path(other).read_text()
    settings = json.loads(text.splitlines()[0])["settings"]
    Path(other).write_text(text.replace(settings, "0" * 16))
    bad = CliRunner().invoke(cli.app, ["compare", one, other])
    assert "twice, with other settings" in str(bad.exception)
