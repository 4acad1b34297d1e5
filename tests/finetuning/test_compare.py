"""The baseline beside a result: the same steps, compared row by row."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import Trainer

from mixup_hf import FinetuneConfig, finetune
from mixup_hf.cli.commands.finetune import show_result
from mixup_hf.finetuning.compare import baseline_of, compare, wilcoxon_p
from mixup_hf.finetuning.metrics import REPORTED
from mixup_hf.finetuning.outcome import Fitted
from mixup_hf.intervals import discordant_p

Make = Callable[..., FinetuneConfig]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What every training began with: the weights of the head, and the rows of each step."""
    seen: list[dict[str, Any]] = []
    train, step = Trainer.train, Trainer.training_step

    def note(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append({"head": self.model.classifier.weight.detach().clone(), "rows": []})
        return train(self, *args, **kwargs)

    def count(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen[-1]["rows"].append(len(inputs["input_ids"]))
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(Trainer, "train", note)
    monkeypatch.setattr(Trainer, "training_step", count)
    return seen


def test_the_baseline_has_the_same_head_steps_and_rows_per_step(
    make_config: Make, trained: list[dict[str, Any]], tmp_path: Path
) -> None:
    training = {"per_device_train_batch_size": 4}
    metrics = finetune(make_config(mixup={}, training=training, compare=True))
    mixed, baseline = trained
    torch.testing.assert_close(mixed["head"], baseline["head"], rtol=0, atol=0)
    before = metrics["contrastive_steps"]
    assert metrics["steps"] == 12 < metrics["steps"] + before
    assert mixed["rows"] == [8] * 12 and baseline["rows"] == [8] * (12 + before)
    assert metrics["baseline"]["steps"] == 12 + before
    assert metrics["baseline"]["mixed_rows"] == 0 < metrics["mixed_rows"]
    accuracy = metrics["comparison"]["metrics"]["test_accuracy"]
    assert accuracy["mixup"] == metrics["test_accuracy"]
    assert accuracy["difference"] == accuracy["mixup"] - accuracy["baseline"]
    console = Console(record=True, width=120)
    show_result(console, metrics, tmp_path / "out")
    printed = console.export_text()
    shown_steps = f"{12 + before} steps (with mixup, {before} of them contrastive"
    for shown in ("baseline", "difference", "McNemar p =", "oversampling", "One seed", shown_steps):
        assert shown in printed


def test_both_arms_choose_among_checkpoints_of_the_same_steps(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    plain = Trainer.evaluate
    monkeypatch.setattr(
        Trainer,
        "evaluate",
        lambda self, *a, **k: steps.append(self.state.global_step) or plain(self, *a, **k),
    )
    config = make_config(data={"validation_share": 0.25}, mixup={}, compare=True)
    before = finetune(config)["contrastive_steps"]
    last = 6 + before  # the contrastive steps before training are made up for
    assert steps == [3, 6, math.ceil(last / 2), last] and before
    assert not list((tmp_path / "out").rglob("checkpoint-*"))
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"baseline", "comparison"} <= set(content)


def test_checkpoints_at_steps_of_the_users_are_kept_for_the_baseline(make_config: Make) -> None:
    """They used to be saved once an epoch, and so were not those that were evaluated."""
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 4}
    config = make_config(data={"validation_share": 0.25}, training=steps, mixup={}, compare=True)
    mixed = Fitted({"steps": 6, "contrastive_steps": 0}, [], [], [], steps_per_epoch=3)
    training = baseline_of(config, mixed).training
    assert {key: training[key] for key in steps} == steps


def test_a_parent_with_an_odd_line_end_is_printed(tmp_path: Path) -> None:
    row = {"lam": 0.5, "soft_label": {"value": -2.0}, "parent_texts": ["a\x85b", "c"], "text": "d"}
    (tmp_path / "mixed.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    console = Console(record=True, width=120)
    show_result(console, {"mixed_rows": 1}, tmp_path)
    assert "value -2.00" in console.export_text()


def fitted(correct: list[bool], errors: list[float] | None = None) -> Fitted:
    kind = "regression" if errors else "single_label_classification"
    metrics = {name: 0.5 for name in REPORTED[kind]} | {"problem_type": kind}
    return Fitted(metrics, [], correct, [], errors or [])


def test_discordant_rows_are_counted() -> None:
    found = compare(fitted([True, True, True, False]), fitted([False, False, True, True]))
    assert (found["only_mixup_correct"], found["only_baseline_correct"]) == (2, 1)
    assert found["test"] == "mcnemar" and found["p"] == pytest.approx(1.0)


def test_p_values_are_those_of_the_tables() -> None:
    assert discordant_p(0, 0) == 1.0
    assert discordant_p(1, 9) == pytest.approx(2 * 11 / 1024)
    assert wilcoxon_p([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert wilcoxon_p([float(n) for n in range(1, 9)], [0.0] * 8) == pytest.approx(2 / 2**8)
    assert compare(fitted([], [1.0, 2.0]), fitted([], [2.0, 3.0]))["test"] == "wilcoxon"


def test_a_run_that_is_stopped_in_its_baseline_has_lost_nothing_and_can_be_run_again(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(data={"validation_share": 0.25}, mixup={}, compare=True)
    plain, runs = Trainer.train, []

    def killed(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        runs.append(self)
        found = plain(self, *args, **kwargs)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Trainer, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune(config)
    output = tmp_path / "out"
    assert "test_accuracy" in json.loads((output / "metrics.json").read_text())
    assert (output / "mixed.jsonl").stat().st_size
    assert list((output / "baseline").glob("checkpoint-*"))
    assert "baseline" in finetune(config)
    assert not list(output.rglob("checkpoint-*"))
