"""Without mixed rows it is the plain Trainer; with them, its random numbers are left alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attaching import plain_trainer
from tiny import make_classifier, make_dataset, make_rows, word_tokenizer
from torch import Tensor
from trainer_runs import (
    LABELS,
    CountingProducer,
    assert_close,
    assert_identical,
    assert_moved,
    make_arguments,
    make_run,
    weights,
)
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback

from mixup_hf import InversedMixup, MixupConfig
from mixup_hf.inverter.model import Inverter
from mixup_hf.training.mixing_collator import MixingCollator
from mixup_hf.training.schedule import Schedule, mixed_per_real

ROWS = 10
SHUFFLED: dict[str, Any] = {
    "num_train_epochs": 2,
    "train_sampling_strategy": "random",
    "optim": "adamw_torch",
    "learning_rate": 1e-2,
}


def plain_weights(folder: Path, **settings: Any) -> dict[str, Tensor]:
    model = make_classifier(LABELS, dropout=0.3)
    tokenizer = word_tokenizer(classifier=True)
    before = weights(model)
    Trainer(
        model=model,
        args=make_arguments(folder, **(SHUFFLED | settings)),
        train_dataset=make_dataset(*make_rows(ROWS, LABELS)),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    ).train()
    assert_moved(before, weights(model))
    return weights(model)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"label_smoothing_factor": 0.1},
        {"dataloader_num_workers": 1},
    ],
    ids=["default", "accumulation", "smoothing", "worker"],
)
def test_mix_ratio_zero_is_the_plain_trainer_bit_for_bit(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run = make_run(
        tmp_path / "mixup",
        model=make_classifier(LABELS, dropout=0.3),
        rows=ROWS,
        collator={"mix_ratio": 0.0},
        **(SHUFFLED | settings),
    ).train()
    assert_identical(weights(run.model), plain_weights(tmp_path / "plain", **settings))
    assert run.used() == []


def test_mix_ratio_zero_is_the_plain_trainer_with_a_plugin_loaded_after_it(
    tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    """As README shows it: the Trainer has seeded the script by then."""
    found, aligner = [], str(saved_aligner())
    for mixed in (False, True):
        model = make_classifier(LABELS, dropout=0.3)
        trainer = plain_trainer(tmp_path / str(mixed), arguments=SHUFFLED, model=model)
        if mixed:
            InversedMixup.from_pretrained(aligner, mix_ratio=0.0).attach(trainer)
        trainer.train()
        found.append(weights(model))
    assert_identical(*found)


def test_mix_ratio_may_be_set_to_zero_between_two_trainings(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_train_epochs=2).train()
    run.callback.producer = CountingProducer(run.producer)
    run.collator.mix_ratio = 0.0
    run.train()
    assert run.callback.producer.asked == []
    assert run.used() == []
    assert all("mixup_rows" not in batch for batch in run.batches.training[-4:])


def test_generating_and_hooking_do_not_shift_shuffling_or_dropout(tmp_path: Path) -> None:
    """Sentences are made and the loss is ours, but the share is too small for one mixed row."""

    class Generates(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            run.producer.produce(0, 8)

    run = make_run(
        tmp_path / "mixup",
        model=make_classifier(LABELS, dropout=0.3),
        rows=ROWS,
        collator={"mix_ratio": 0.01},
        **SHUFFLED,
    )
    run.trainer.add_callback(Generates())
    run.train()
    assert all((batch["mixup_rows"] < 0).all() for batch in run.batches.training)
    assert_close(weights(run.model), plain_weights(tmp_path / "plain"), 1e-6)


class GlobalStates(TrainerCallback):
    """Put before and after the plugin's callback, sees whether it drew global random numbers."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def _look(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append(global_states())

    on_train_begin = on_epoch_begin = on_step_end = on_save = _look


def global_states() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist()


@pytest.mark.parametrize("real", [False, True], ids=["fake", "tiny-inverter"])
def test_the_callback_draws_no_global_random_numbers(
    real: bool, tmp_path: Path, tiny_inverter: Inverter
) -> None:
    before, after = GlobalStates(), GlobalStates()
    run = make_run(tmp_path, rows=8, num_train_epochs=2, save_strategy="steps", save_steps=1, **{})
    if real:
        texts, labels = make_rows(8, LABELS)
        config = MixupConfig(max_new_tokens=4, chunk_size=4, temperature=1.0)
        mixup = InversedMixup(tiny_inverter, texts, labels, config=config)
        run.callback.producer = mixup.producer
    callbacks = run.trainer.callback_handler.callbacks
    at = callbacks.index(run.callback)
    callbacks.insert(at + 1, after)
    callbacks.insert(at, before)
    run.train()
    assert len(before.seen) == 1 + 2 + 4 + 4
    assert before.seen == after.seen
    assert run.used()


def test_drawing_for_a_batch_draws_no_global_random_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=8).train()
    assert run.callback.pool is not None
    features = [dict(row) for row in make_dataset(*make_rows(4, LABELS))]
    before = global_states()
    schedule = Schedule(mixed_per_real(0.5), batch_size=4, epoch_rows=8)
    batch = MixingCollator(run.collator, run.callback.pool, schedule)(features)
    assert (batch["mixup_rows"] >= 0).sum() == 4
    assert global_states() == before


def test_two_trainings_from_one_seed_are_identical(tmp_path: Path) -> None:
    runs = [
        make_run(
            tmp_path / name, model=make_classifier(LABELS, dropout=0.3), rows=ROWS, **SHUFFLED
        ).train()
        for name in ("one", "two")
    ]
    assert_identical(weights(runs[0].model), weights(runs[1].model))
    assert runs[0].used() == runs[1].used()


def test_another_seed_of_the_callback_uses_too_few_rows_again_in_another_order(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"rows": 24, "per_device_train_batch_size": 8}
    runs = [
        make_run(tmp_path / str(seed), callback={"seed": seed, "rows_per_refill": 8}, **settings)
        for seed in (0, 1)
    ]
    one, two = (run.train().batches.mixed_texts() for run in runs)
    assert one[:8] == two[:8]
    assert one[8:] != two[8:]
    assert sorted(one[8:16]) == sorted(one[:8])
