"""Recipes: every config loads, and the scripts run under accelerate."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from aligning import LEXICON_STAGE, make_config, save_partners
from tiny import make_rows

from mixup_hf import AlignConfig, FinetuneConfig, Inverter, load_config
from mixup_hf.config import StageConfig
from mixup_hf.evaluation.experiment.config import ExperimentConfig

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"


@pytest.fixture
def launch(processes: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """Runs a script: under `accelerate launch` with two processes, in this process alone with one.

    The launcher with the configuration for one process is tested with the README's commands.
    """

    def run(script: str, argument: Path) -> None:
        words = [str(RECIPES / script), str(argument)]
        if processes == 1:
            monkeypatch.setattr("sys.argv", words)
            runpy.run_path(words[0], run_name="__main__")
            return
        config = RECIPES / "accelerate_configs" / "cpu_two_processes.yaml"
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
        command += ["--main_process_port", "0", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-3000:]

    return run


@pytest.mark.parametrize(
    "path", sorted((RECIPES / "configs").rglob("*.yaml")), ids=lambda p: p.stem
)
def test_every_run_config_loads(path: Path) -> None:
    kinds = {"align": AlignConfig, "evaluate": ExperimentConfig}
    load_config(kinds.get(path.parent.name, FinetuneConfig), path)


def test_baseline_and_mixup_differ_only_in_mixup_keys_and_the_folder() -> None:
    baseline, mixup = (
        yaml.safe_load((RECIPES / "configs" / "bbc" / f"{name}.yaml").read_text())
        for name in ("baseline", "mixup")
    )
    different = {key for key in {*baseline, *mixup} if baseline.get(key) != mixup.get(key)}
    assert different == {"mixup", "output_dir"}


# README's commands, which tests run, train on two processes too.
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_finetune_runs_on_as_many_processes_as_the_config_says(
    launch: Callable[[str, Path], None],
    processes: int,
    tmp_path: Path,
    saved_aligner: Callable[..., Path],
) -> None:
    aligner = saved_aligner()
    texts, labels = make_rows(24)
    data = tmp_path / "data.jsonl"
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tmp_path / "run.yaml"
    content = {
        "data": {"train_file": str(data), "test_file": str(data)},
        "model": str(tmp_path / "encoder"),
        "output_dir": str(tmp_path / "out"),
        "training": {"num_train_epochs": 1, "per_device_train_batch_size": 4, "use_cpu": True},
        "mixup": {"aligner": str(aligner), "max_new_tokens": 5, "chunk_size": 8},
    }
    config.write_text(yaml.safe_dump(content))
    launch("finetune.py", config)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["processes"] == processes
    # One mixed row for each real row of the first half of the run, over all processes.
    assert metrics["mixed_draws"] == 12
    lines = (tmp_path / "out" / "mixed.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["times_used"] for line in lines) == 12


@pytest.mark.parametrize("processes", [1, 2])
def test_align_trains_one_aligner_on_as_many_processes_as_the_config_says(
    launch: Callable[[str, Path], None], processes: int, tmp_path: Path
) -> None:
    stages = (LEXICON_STAGE, StageConfig(name="1b-lora", train_lora=True, max_steps=3))
    config = make_config(save_partners(tmp_path), tmp_path / "out", stages=stages)
    file = tmp_path / "align.json"
    file.write_text(json.dumps(asdict(config)))
    launch("align.py", file)
    aligner = tmp_path / "out" / "aligner"
    inverter = Inverter.from_pretrained(aligner, device="cpu", quantization="none")
    assert len(inverter.invert(inverter.encode(["the red market"]))) == 1
    assert f"processes | {processes} |" in (aligner / "README.md").read_text()


def test_scripts_stay_thin() -> None:
    for script in RECIPES.glob("*.py"):
        assert len(script.read_text().splitlines()) <= 120


def test_the_benchmark_of_large_sets_runs_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    cache = datasets.config.HF_DATASETS_CACHE
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)  # restored afterwards
    script = runpy.run_path(str(RECIPES / "benchmarks" / "scale.py"))
    seconds = script["run"](200, 40, "same_class")
    assert set(seconds) == {"read", "embed", "pair", "fit", "generate", "pool"}
    assert all(value > 0 for value in seconds.values())
