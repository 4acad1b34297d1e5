"""An experiment on tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from experiment_data import NAMES, TRAINING
from tiny import make_rows

from mixup_hf import load_config
from mixup_hf.evaluation.experiment.config import ExperimentConfig


@pytest.fixture
def make(tmp_path: Path, saved_aligner: Callable[..., Path]) -> Callable[..., ExperimentConfig]:
    aligner = saved_aligner()
    texts, labels = make_rows(36)
    data = tmp_path / "data.jsonl"
    lines = [
        json.dumps({"text": text, "label": NAMES[label]})
        for text, label in zip(texts, labels, strict=True)
    ]
    data.write_text("\n".join(lines) + "\n")
    files = {"train_file": str(data), "test_file": str(data), "max_length": 32}

    def config(*, mixup: dict[str, Any] | None = None, **settings: Any) -> ExperimentConfig:
        mixing = {"aligner": str(aligner), "max_new_tokens": 4, "leaks": "off"} | (mixup or {})
        content = {
            "sets": {"tiny": files},
            "output_dir": str(tmp_path / "out"),
            "model": str(tmp_path / "encoder"),
            "arms": ["none", "oversample"],
            "shots": [4],
            "seeds": [0, 1],
            "rows": 8,
            "test_rows": 12,
            "training": TRAINING,
            "mixup": mixing,
        }
        file = tmp_path / "experiment.yaml"
        file.write_text(json.dumps(content | settings))
        return load_config(ExperimentConfig, file)

    return config
