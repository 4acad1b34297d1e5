"""Training arguments of single arms."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixup_hf.config import DataConfig, MixupConfig
from mixup_hf.errors import InvalidInput
from mixup_hf.evaluation.experiment.config import ExperimentConfig

DATA = DataConfig(train_file="train.jsonl", test_file="test.jsonl")


def make(**settings: object) -> ExperimentConfig:
    training = {"max_steps": 5, "learning_rate": 2e-4}
    defaults: dict[str, object] = {"sets": {"tiny": DATA}, "output_dir": "out"}
    defaults |= {"arms": ("none", "default"), "training": training}
    return ExperimentConfig(**(defaults | settings))  # type: ignore[arg-type]


def test_an_arm_may_have_training_arguments_of_its_own() -> None:
    config = make(training_of={"default": {"learning_rate": 5e-5}})
    assert config.training_for("default") == {"max_steps": 5, "learning_rate": 5e-5}
    assert config.training_for("none") == {"max_steps": 5, "learning_rate": 2e-4}
    assert "training arguments of their own: default" in config.regime


def test_only_runs_of_that_arm_become_others() -> None:
    plain, other = make(), make(training_of={"default": {"learning_rate": 5e-5}})
    assert plain.digest_of("none", "tiny") == other.digest_of("none", "tiny")
    assert plain.digest_of("default", "tiny") != other.digest_of("default", "tiny")


def test_an_unknown_arm_is_refused() -> None:
    with pytest.raises(InvalidInput, match="training_of"):
        make(training_of={"defualt": {"learning_rate": 5e-5}})


def test_runs_on_other_rows_or_models_in_the_same_folders_are_other_runs(tmp_path: Path) -> None:
    """They used to be paired by seed with those of before."""
    folders = {name: tmp_path / name for name in ("rows", "model", "aligner")}
    for folder in folders.values():
        folder.mkdir()
        (folder / "content").write_text("before")
    mixup = MixupConfig(aligner=str(folders["aligner"]))
    settings = {"model": str(folders["model"]), "mixup": mixup}
    config = make(sets={"own": DataConfig(dataset=str(folders["rows"]))}, **settings)
    seen = {config.digest_of("default", "own")}
    for folder in folders.values():
        (folder / "content").write_text("after it")
        seen.add(config.digest_of("default", "own"))
    assert len(seen) == 4
