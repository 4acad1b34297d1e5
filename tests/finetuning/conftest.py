"""Runs of `finetune` on tiny models and data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finetuning_data import classes, write_rows

from mixup_hf import FinetuneConfig
from mixup_hf.config import DataConfig, MixupConfig

Make = Callable[..., FinetuneConfig]


@pytest.fixture
def make_config(tmp_path: Path, saved_aligner: Callable[..., Path]) -> Make:
    """A config over 24 training rows and 12 test rows, on a CPU, with mixing or without."""
    aligner = saved_aligner()

    def make(
        labels: tuple[list[Any], list[Any]] | None = None,
        data: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        mixup: dict[str, Any] | None = None,
        **settings: Any,
    ) -> FinetuneConfig:
        train, test = labels or (classes(24), classes(12))
        files = {
            "train_file": str(write_rows(tmp_path / "train.jsonl", train)),
            "test_file": str(write_rows(tmp_path / "test.jsonl", test, start=24)),
        }
        mixing = {"aligner": str(aligner), "max_new_tokens": 4, "leaks": "off"}
        off = {"enabled": mixup is not None, "intrusion": "off"}
        return FinetuneConfig(
            data=DataConfig(**(files | (data or {}))),
            output_dir=str(tmp_path / "out"),
            model=str(tmp_path / "encoder"),
            training={
                "num_train_epochs": 2,
                "use_cpu": True,
                "learning_rate": 1e-3,
                **(training or {}),
            },
            mixup=MixupConfig(**(mixing | off | (mixup or {}))),
            **settings,
        )

    return make
