"""Evaluation and prediction never see a mixed row; after training nothing is left installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny import make_dataset, make_rows
from trainer_runs import Run, assert_moved, make_run, record, sharp_classifier, weights
from transformers import TrainerCallback, trainer_pt_utils

EVALUATED = 6


def held_out() -> Dataset:
    return make_dataset(*make_rows(EVALUATED))


def assert_plain(run: Run, evaluations: int) -> None:
    """Evaluation saw the six rows each time, in batches as the wrapped collator makes them."""
    assert sum(len(batch["input_ids"]) for batch in run.batches.evaluation) == (
        evaluations * EVALUATED
    )
    for batch in run.batches.evaluation:
        assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
        assert batch["labels"].dtype == torch.int64


def assert_mixed(run: Run, batches: int) -> None:
    """Training saw mixed rows in every batch."""
    assert len(run.batches.training) == batches
    assert all((batch["mixup_rows"] >= 0).any() for batch in run.batches.training)


def test_evaluating_every_step_and_at_the_start_stays_plain(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        trainer={"eval_dataset": held_out()},
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=4,
    ).train()
    assert_plain(run, evaluations=1 + 2)
    assert_mixed(run, batches=2)


def test_a_dict_of_evaluation_sets_stays_plain(tmp_path: Path) -> None:
    sets = {"one": held_out(), "two": held_out()}
    run = make_run(
        tmp_path, trainer={"eval_dataset": sets}, eval_strategy="epoch", num_train_epochs=2
    ).train()
    assert_plain(run, evaluations=2 * 2)
    assert_mixed(run, batches=4)
    assert len(run.logged("eval_one_loss")) == len(run.logged("eval_two_loss")) == 2


def test_evaluate_and_predict_before_and_after_training_stay_plain(tmp_path: Path) -> None:
    run = make_run(tmp_path, trainer={"eval_dataset": held_out()})
    run.trainer.evaluate()
    run.train()
    run.trainer.evaluate()
    predicted = run.trainer.predict(held_out())
    assert predicted.predictions.shape == (EVALUATED, 3)
    assert predicted.label_ids.tolist() == make_rows(EVALUATED)[1]
    assert_plain(run, evaluations=3)
    assert_mixed(run, batches=2)


def test_predicting_without_labels_works(tmp_path: Path) -> None:
    run = make_run(tmp_path).train()
    predicted = run.trainer.predict(held_out().remove_columns("label"))
    assert predicted.predictions.shape == (EVALUATED, 3)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluating_the_training_set_during_training_stays_plain(
    workers: int, tmp_path: Path
) -> None:
    """What tells training from evaluation is the loader, not the rows."""
    run = make_run(
        tmp_path,
        rows=EVALUATED,
        trainer={"eval_dataset": held_out()},
        eval_strategy="epoch",
        num_train_epochs=2,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
    ).train()
    assert_plain(run, evaluations=2)
    assert_mixed(run, batches=4)


def test_loader_and_model_are_restored_after_training(tmp_path: Path) -> None:
    class Loader(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.loader = kwargs["train_dataloader"]
            self.collate = self.loader.collate_fn  # before the plugin, which comes later

    smoother, look = trainer_pt_utils.LabelSmoother.__call__, Loader()
    run = make_run(tmp_path, label_smoothing_factor=0.1)
    run.trainer.callback_handler.callbacks.insert(0, look)
    hooks = (len(run.model._forward_pre_hooks), len(run.model._forward_hooks))
    installed: list[Any] = []

    class During(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            installed[:] = [
                look.loader.collate_fn is not look.collate,
                len(run.model._forward_hooks) > hooks[1],
                trainer_pt_utils.LabelSmoother.__call__ is smoother,  # other Trainers keep theirs
            ]

    run.trainer.add_callback(During())
    run.train()
    assert installed == [True, True, True]
    assert look.collate is run.collator
    assert look.loader.collate_fn is run.collator
    assert look.loader.base_dataloader.collate_fn is run.collator
    assert (len(run.model._forward_pre_hooks), len(run.model._forward_hooks)) == hooks
    assert trainer_pt_utils.LabelSmoother.__call__ is smoother


def test_training_twice_trains_twice(tmp_path: Path) -> None:
    run = make_run(tmp_path).train()
    first, used = weights(run.model), run.used()
    run.train()
    assert_mixed(run, batches=2 * 2)
    assert_moved(first, weights(run.model))
    assert run.used() == used  # the counts are the last training's


def test_a_training_that_was_interrupted_can_be_started_again(tmp_path: Path) -> None:
    """As in a notebook, or with `auto_find_batch_size`: the Trainer then skips on_train_end."""

    class Interrupt(TrainerCallback):
        armed = True

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if self.armed:
                raise KeyboardInterrupt

    smoother, interrupt = trainer_pt_utils.LabelSmoother.__call__, Interrupt()
    run = make_run(tmp_path, label_smoothing_factor=0.1)
    run.trainer.add_callback(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run.train()
        interrupt.armed = False
        run.train()
        assert trainer_pt_utils.LabelSmoother.__call__ is smoother
    finally:
        trainer_pt_utils.LabelSmoother.__call__ = smoother
    assert len(run.logged("loss")) == 2
    assert sum(count for _, count in run.used()) == 8  # counted once each


def test_another_model_may_be_trained_by_the_same_callback(tmp_path: Path) -> None:
    run = make_run(tmp_path, model=None)
    run.train()
    other = make_run(tmp_path, model=sharp_classifier(seed=5))
    other.trainer.callback_handler.callbacks = run.trainer.callback_handler.callbacks
    other.trainer.data_collator = run.collator
    batches = record(other.model)
    other.train()
    assert len(batches.training) == 2
    assert len(run.batches.training) == 2
