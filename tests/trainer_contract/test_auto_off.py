"""Mixing that stops by itself: when it is shown to hurt, not before, and again after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_dataset, make_rows
from torch import Tensor, nn
from trainer_runs import Run, assert_identical, make_run, weights

from mixup_hf.training.auto_off import DevelopmentWatch
from mixup_hf.training.checkpointing import Saved

EPOCHS = 6


def prepare(folder: Path, learning_rate: float, **settings: Any) -> Run:
    """A run with 72 development rows; at a rate of 1 it is bound to go wrong."""
    texts, labels = make_rows(12)
    development = make_dataset(6 * texts, 6 * labels)
    return make_run(
        folder,
        rows=12,
        trainer={"eval_dataset": development},
        callback={"auto_off": True} | settings.pop("callback", {}),
        **{
            "num_train_epochs": EPOCHS,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "learning_rate": learning_rate,
        }
        | settings,
    )


def mixed_by_epoch(run: Run) -> list[int]:
    counts = [int((batch["mixup_rows"] >= 0).sum()) for batch in run.batches.training]
    return [sum(counts[at : at + 3]) for at in range(0, len(counts), 3)]


def test_mixing_stops_when_the_development_set_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = prepare(tmp_path, 1.0).train()
    losses = run.logged("eval_loss")
    assert mixed_by_epoch(run) == [12, 12, 0, 0, 0, 0]
    assert "`auto_off` has stopped mixing at step 6" in caplog.text
    assert f"rose from {losses[0]:.4f} to {losses[1]:.4f}" in caplog.text
    assert caplog.text.count("has stopped mixing") == 1


def test_mixing_goes_on_while_nothing_is_shown(tmp_path: Path) -> None:
    run = prepare(tmp_path, 0.05).train()
    assert mixed_by_epoch(run) == [12] * EPOCHS
    plain = make_run(tmp_path / "plain", rows=12, num_train_epochs=EPOCHS, learning_rate=0.05)
    assert_identical(weights(run.model), weights(plain.train().model))  # watching changes nothing


def test_a_resumed_run_remembers_that_mixing_is_off_and_why(tmp_path: Path) -> None:
    whole = prepare(tmp_path, 1.0).train()
    for step in (3, 6, 9, 15):  # before there was anything to compare, when it went off, and after
        again = prepare(tmp_path, 1.0)
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert_identical(weights(again.model), weights(whole.model))


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_mixing_may_stop_within_an_epoch(tmp_path: Path, every: int, workers: int) -> None:
    """Batches that the loader had prefetched are still mixed, and counted."""
    loading = {"dataloader_num_workers": workers, "save_strategy": "steps", "save_steps": 1}
    steps = {"eval_strategy": "steps", "eval_steps": every, **loading}
    whole = prepare(tmp_path, 1.0, **steps).train()
    mixed = [int((batch["mixup_rows"] >= 0).sum()) for batch in whole.batches.training]
    off = mixed.index(0)
    assert mixed == [4] * off + [0] * (len(mixed) - off)
    assert sum(count for _, count in whole.used()) == 4 * off
    stopped = next(
        step
        for step in range(1, len(mixed))
        if Saved.read(tmp_path / f"checkpoint-{step}" / "mixup_hf").off
    )
    again = prepare(tmp_path, 1.0, **steps)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stopped}"))
    assert_identical(weights(again.model), weights(whole.model))
    assert again.used() == whole.used()


def test_it_is_refused_where_it_could_see_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`eval_strategy` is 'no'"):
        prepare(tmp_path, 0.1, eval_strategy="no").train()
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        prepare(tmp_path, 0.1, label_smoothing_factor=0.1).train()


class Echo(nn.Module):
    """Hands out given logits as a model's outputs."""

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"logits": logits}


def evaluate(model: Echo, watch: DevelopmentWatch, logits: Tensor) -> str | None:
    for rows in logits.split(16):  # all of the first class
        model(logits=rows, labels=torch.zeros(len(rows), dtype=torch.long))
    return watch.judge({"eval_loss": 0.0})


def test_noise_stops_no_more_than_one_run_in_twenty() -> None:
    stopped = 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        model = Echo().eval()
        watch = DevelopmentWatch(model, "single_label_classification")
        found = [evaluate(model, watch, torch.randn(64, 3, generator=generator)) for _ in range(8)]
        stopped += any(found)
    assert 1 <= stopped <= 10


def test_a_rise_of_all_rows_is_seen_and_training_is_not_looked_at() -> None:
    model = Echo().eval()
    watch = DevelopmentWatch(model, "single_label_classification")
    sure = torch.tensor([[3.0, 0.0, 0.0]]).repeat(40, 1)
    assert evaluate(model, watch, sure) is None
    model.train()
    model(logits=-sure, labels=torch.zeros(40, dtype=torch.long))
    model.eval()
    assert evaluate(model, watch, sure) is None
    assert "rose from 0.0949 to" in (evaluate(model, watch, sure * 0.5) or "")
    watch.remove()
    assert evaluate(model, watch, -sure) is None
