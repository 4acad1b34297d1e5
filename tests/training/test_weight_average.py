"""The weights that a run ends with are the mean over its last steps."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import make_mixup, plain_trainer
from safetensors.torch import load_file, save_file
from tiny import make_classifier, make_dataset, word_tokenizer
from torch import Tensor
from trainer_runs import LABELS, assert_identical, make_arguments, make_rows, weights
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback

from mixup_hf import errors
from mixup_hf.training.weight_average import WeightAverage

ROWS, STEPS = 16, 4
FILE = Path("mixup_hf") / "average.safetensors"


class Keeper(TrainerCallback):
    """Keeps the weights after every step."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Tensor]] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.kept.append({key: each.clone() for key, each in weights(kwargs["model"]).items()})


def prepare(
    folder: Path, share: float, *, seed: int = 0, model: Any = None, **arguments: Any
) -> tuple[Trainer, WeightAverage, Keeper]:
    average, keeper = WeightAverage(share), Keeper()
    dataset = make_dataset(*make_rows(ROWS, LABELS))
    arguments = {"save_strategy": "steps", "save_steps": 1} | arguments
    trainer = Trainer(
        model=model or make_classifier(LABELS, dropout=0.3, seed=seed),
        args=make_arguments(folder, **arguments),
        train_dataset=dataset,
        eval_dataset=dataset,
        data_collator=DataCollatorWithPadding(word_tokenizer(classifier=True)),
        callbacks=[average, keeper],
    )
    return trainer, average, keeper


def test_weights_that_are_unfrozen_on_the_way_stay_those_of_the_last_step(tmp_path: Path) -> None:
    model = make_classifier(LABELS, dropout=0.0)
    late = model.classifier.bias
    late.requires_grad = False

    class Unfreezes(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            late.requires_grad = state.global_step >= 2

    trainer, average, keeper = prepare(tmp_path, 1.0, model=model)
    trainer.add_callback(Unfreezes)
    trainer.train()
    assert average.count == STEPS
    assert torch.equal(late, keeper.kept[-1]["classifier.bias"])
    assert not torch.equal(model.classifier.weight, keeper.kept[-1]["classifier.weight"])


@pytest.mark.parametrize(
    ("share", "averaged"), [(0.75, 3), (0.5, 2), (0.6, 3), (1.0, 4), (0.25, 1)]
)
def test_the_run_ends_with_the_mean_of_its_last_steps(
    tmp_path: Path, share: float, averaged: int
) -> None:
    trainer, average, keeper = prepare(tmp_path, share)
    trainer.train()
    assert average.count == averaged
    assert len(keeper.kept) == STEPS
    last = keeper.kept[-averaged:]
    for name, weight in weights(trainer.model).items():
        torch.testing.assert_close(weight, torch.stack([each[name] for each in last]).mean(0))
    trainer.save_model(str(tmp_path / "saved"))
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert_identical(saved, weights(trainer.model))
    # The model of a checkpoint is what the optimizer goes on from.
    checkpoint = load_file(tmp_path / f"checkpoint-{STEPS}" / "model.safetensors")
    assert_identical(checkpoint, keeper.kept[-1])


def test_frozen_weights_and_weights_of_less_precision(tmp_path: Path) -> None:
    model = make_classifier(LABELS).to(torch.bfloat16)
    model.base_model.embeddings.requires_grad_(False)
    before = {key: each.clone() for key, each in weights(model).items()}
    trainer, average, keeper = prepare(tmp_path, 1.0, model=model)
    trainer.train()
    stored = load_file(tmp_path / f"checkpoint-{STEPS}" / FILE)
    for name, weight in weights(trainer.model).items():
        kept = torch.stack([each[name] for each in keeper.kept]).float().mean(0)
        assert weight.dtype == torch.bfloat16
        torch.testing.assert_close(weight, kept.to(torch.bfloat16), atol=1e-3, rtol=1e-2)
        if "embeddings" in name:
            assert torch.equal(weight, before[name]) and name not in stored
        else:
            assert stored[name].dtype == torch.float32  # three digits would lose small steps
            torch.testing.assert_close(stored[name], kept)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_resumed_run_ends_where_the_whole_one_does(tmp_path: Path, step: int) -> None:
    whole, *_ = prepare(tmp_path / "whole", 0.75)
    whole.train()
    checkpoint = tmp_path / "resumed" / f"checkpoint-{step}"
    shutil.copytree(tmp_path / "whole" / checkpoint.name, checkpoint)
    resumed, average, _ = prepare(tmp_path / "resumed", 0.75, seed=9)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert average.count == 3
    assert_identical(weights(resumed.model), weights(whole.model))


def test_without_the_mean_so_far_it_begins_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, *_ = prepare(tmp_path / "whole", 1.0)
    whole.train()
    resumed, average, keeper = prepare(tmp_path / "elsewhere", 1.0)
    with caplog.at_level(logging.WARNING):
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert "is not there: the mean of the weights begins anew" in caplog.text
    assert average.count == len(keeper.kept) == 2
    for name, weight in weights(resumed.model).items():
        mean = torch.stack([each[name] for each in keeper.kept]).mean(0)
        torch.testing.assert_close(weight, mean)


@pytest.mark.parametrize("damage", ["cut", "other", "no count"])
def test_a_damaged_mean_is_refused(tmp_path: Path, damage: str) -> None:
    trainer, *_ = prepare(tmp_path, 1.0)
    trainer.train()
    checkpoint = tmp_path / "checkpoint-2"
    if damage == "cut":
        (checkpoint / FILE).write_bytes((checkpoint / FILE).read_bytes()[:100])
    elif damage == "other":
        save_file({"x": torch.zeros(1)}, checkpoint / FILE, {"steps": "2"})
    else:
        save_file(load_file(checkpoint / FILE), checkpoint / FILE)
    again, *_ = prepare(tmp_path, 1.0)
    with pytest.raises(errors.InvalidInput, match="must hold the mean of the weights so far"):
        again.train(resume_from_checkpoint=str(checkpoint))


def test_a_longer_run_begins_its_mean_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, *_ = prepare(tmp_path, 0.75, max_steps=4)
    trainer.train()
    longer, average, keeper = prepare(tmp_path, 0.75, max_steps=8)
    with caplog.at_level(logging.WARNING):
        longer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert "With 8 steps in all it begins anew at this one" in caplog.text
    assert average.count == len(keeper.kept) == 4
    for name, weight in weights(longer.model).items():
        mean = torch.stack([each[name] for each in keeper.kept]).mean(0)
        torch.testing.assert_close(weight, mean)


BEST: dict[str, Any] = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1}


@pytest.mark.parametrize("reason", ["best", "shards"])
def test_where_no_mean_can_be_had_it_is_refused_or_left_out(
    tmp_path: Path,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer, average, keeper = prepare(tmp_path, 0.5, **(BEST if reason == "best" else {}))
    if reason == "shards":
        monkeypatch.setattr("mixup_hf.runtime.is_sharded", lambda: True)
    with pytest.raises(errors.InvalidInput, match=r"`weight_average` must be 0 .* but got 0\.5"):
        trainer.train()
    assert not keeper.kept
    average.optional = True
    with caplog.at_level(logging.INFO):
        trainer.train()
    assert "the weights are not averaged" in caplog.text
    assert average.count == 0
    if reason == "shards":  # the model is as the last step left it
        assert_identical(weights(trainer.model), keeper.kept[-1])


class AtTheEnd(TrainerCallback):
    """Keeps the model as a tracker saves it, which comes before other callbacks."""

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.kept = {key: each.clone() for key, each in weights(kwargs["model"]).items()}


def test_trackers_and_the_callbacks_of_a_script_get_the_mean(tmp_path: Path) -> None:
    trainer, tracker = plain_trainer(tmp_path), AtTheEnd()
    trainer.callback_handler.callbacks.insert(0, tracker)
    make_mixup(weight_average=1.0).attach(trainer)
    keeper = Keeper()
    trainer.add_callback(keeper)
    trainer.train()
    assert_identical(tracker.kept, weights(trainer.model))
    assert len(keeper.kept) == 3
    for name, weight in tracker.kept.items():
        mean = torch.stack([each[name] for each in keeper.kept]).mean(0)
        torch.testing.assert_close(weight, mean)


@pytest.mark.parametrize("share", [0.0, 0.5, None])
def test_the_setting_reaches_the_trainer(tmp_path: Path, share: float | None) -> None:
    settings = {} if share is None else {"weight_average": share}
    trainer = plain_trainer(tmp_path)
    make_mixup(**settings).attach(trainer)
    found = [each for each in trainer.callback_handler.callbacks if isinstance(each, WeightAverage)]
    # None: parents' labels here, for which nothing is averaged unless it is asked for.
    assert [each.share for each in found] == ([share] if share else [])
    assert not any(each.optional for each in found)
    trainer.train()
    assert trainer.state.max_steps == 3
    assert [each.count for each in found] == ([2] if share else [])


def test_no_plugin_no_mean(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    make_mixup(weight_average=0.5, enabled=False).attach(trainer)
    assert not any(isinstance(each, WeightAverage) for each in trainer.callback_handler.callbacks)
