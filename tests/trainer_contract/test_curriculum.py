"""A curriculum in a Trainer: the same rows for any accumulation, workers and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import TEXTS, make_mixup, plain_trainer
from tiny import make_classifier, make_producer
from trainer_runs import (
    LABELS,
    Run,
    assert_close,
    assert_identical,
    make_run,
    record,
    tokens,
    weights,
)

from mixup_hf.generation.generator import Producer
from mixup_hf.training.curriculum import RealRows
from mixup_hf.types import MixedExample

ROWS = 8  # two batches an epoch
HALF: dict[str, Any] = {"curriculum": "first:0.5"}


class Notes(Producer):
    """Counts the rows that it decodes."""

    def __init__(self, producer: Producer) -> None:
        self.__dict__.update(producer.__dict__)
        self.made = 0

    def chunk(self, epoch: int, chunk: int, num_rows: int) -> list[MixedExample]:
        rows = super().chunk(epoch, chunk, num_rows)
        self.made += len(rows)
        return rows


def prepare(folder: Path, *, fill: bool = True, rows: int = ROWS, **settings: Any) -> Run:
    producer = Notes(make_producer(rows, LABELS))
    callback = HALF | settings.pop("callback", {})
    if fill:
        callback["fill"] = RealRows(producer.texts, producer.targets, seed=3)
    settings = {"num_train_epochs": 2} | settings
    return make_run(folder, rows=rows, producer=producer, callback=callback, **settings)


def positions(run: Run) -> list[list[int]]:
    return [batch["mixup_rows"].tolist() for batch in run.batches.training]


def rows_of(batch: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    """Tokens of every row of a batch, without padding."""
    pairs = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return [tuple(ids[mask.bool()].tolist()) for ids, mask in pairs]


def test_generated_rows_are_in_the_first_half_of_the_run(tmp_path: Path) -> None:
    run = prepare(tmp_path, fill=False).train()
    real = [-1] * 4
    assert positions(run) == [[*real, 0, 1, 2, 3], [*real, 4, 5, 6, 7], real, real]
    assert run.logged("mixup_hf/generated_share") == [0.5, 0.5, 0.0, 0.0]


def test_training_rows_take_the_empty_places(tmp_path: Path) -> None:
    run = prepare(tmp_path, collator={"mixed_weight": 0.25}).train()
    assert [len(each) for each in positions(run)] == [8] * 4
    assert positions(run)[2:] == [[-1] * 8] * 2
    expected = RealRows(run.producer.texts, run.producer.targets, seed=3).at(range(8))
    filled = [row for batch in run.batches.training[2:] for row in rows_of(batch)[4:]]
    assert filled == [tuple(tokens(row.text)) for row in expected]
    soft = torch.cat([batch["soft_labels"][4:] for batch in run.batches.training[2:]])
    assert soft.tolist() == [list(row.label) for row in expected]  # not weighted as generated ones
    assert run.logged("mixup_hf/generated_share") == [0.5, 0.5, 0.0, 0.0]
    assert sum(count for _, count in run.used()) == 8


@pytest.mark.parametrize("every", [0, 1, 2])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(("spec", "made"), [("first:0.5", 12), ("last:0.5", 12), ("ramp", 12)])
def test_no_row_is_made_that_is_not_used(
    spec: str, made: int, background: bool, every: int, tmp_path: Path
) -> None:
    callback = {"curriculum": spec, "background": background, "refill_every": every}
    run = prepare(tmp_path, num_train_epochs=3, callback=callback).train()
    used = sum(count for _, count in run.used())
    assert used == made
    once = 8 if every == 0 else made  # then the rows of one epoch are used again
    assert run.producer.made == once == len(run.used())


@pytest.mark.parametrize("spec", ["first:0.375", "last:0.5", "ramp"])
def test_four_batches_of_one_row_are_one_batch_of_four(spec: str, tmp_path: Path) -> None:
    callback = {"curriculum": spec}
    whole = prepare(tmp_path / "whole", callback=callback).train()
    parts = prepare(
        tmp_path / "parts",
        callback=callback,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
    ).train()
    for step, batch in enumerate(whole.batches.training):
        micro = parts.batches.training[4 * step : 4 * step + 4]
        assert sorted(row for each in micro for row in rows_of(each)) == sorted(rows_of(batch))
    assert parts.used() == whole.used()
    assert_close(weights(parts.model), weights(whole.model))


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing(persistent: bool, tmp_path: Path) -> None:
    alone = prepare(tmp_path / "none").train()
    helped = prepare(
        tmp_path / "two", dataloader_num_workers=2, dataloader_persistent_workers=persistent
    ).train()
    assert_same_batches(helped, alone)
    assert_identical(weights(helped.model), weights(alone.model))
    assert helped.used() == alone.used()


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_a_resumed_run_gets_the_batches_of_the_uninterrupted_one(step: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "num_train_epochs": 3,
        "train_sampling_strategy": "random",
        "save_strategy": "steps",
        "save_steps": 1,
    }

    def dropping() -> Run:
        return prepare(tmp_path, model=make_classifier(LABELS, dropout=0.3), **settings)

    whole = dropping().train()
    again = dropping()
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert_same_batches(again, whole, step)
    assert_identical(weights(again.model), weights(whole.model))
    assert again.used() == whole.used()


def test_a_run_of_another_length_is_not_a_resume(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1}
    prepare(tmp_path, **saving).train()
    longer = prepare(tmp_path, num_train_epochs=3, **saving)
    with pytest.raises(ValueError, match=r"other mixup settings.*run_epochs"):
        longer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_constant_is_what_it_was(tmp_path: Path) -> None:
    plain = make_run(tmp_path / "plain", num_train_epochs=2).train()
    run = prepare(tmp_path / "constant", callback={"curriculum": "constant"}).train()
    assert_same_batches(run, plain)
    assert_identical(weights(run.model), weights(plain.model))


def test_the_number_of_steps_is_the_length_of_a_run_too(tmp_path: Path) -> None:
    run = prepare(tmp_path, fill=False, rows=400, max_steps=6).train()
    assert [len(each) for each in positions(run)] == [8, 8, 8, 4, 4, 4]
    assert run.producer.made == 12


def test_a_curriculum_is_a_setting_of_the_plugin(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    make_mixup(curriculum="last:0.5", curriculum_fill="real", mix_ratio=0.2).attach(trainer)
    batches = record(trainer.model)
    trainer.train()
    generated = [int((batch["mixup_rows"] >= 0).sum()) for batch in batches.training]
    assert generated == [0, 0, 1]  # three places, of which the last begins in the second half
    assert [len(batch["labels"]) for batch in batches.training] == [5, 5, 5]
    texts = {tuple(tokens(text)) for text in TEXTS}
    assert all(rows_of(batch)[4] in texts for batch in batches.training[:2])


def assert_same_batches(run: Run, whole: Run, skipped: int = 0) -> None:
    expected = whole.batches.training[skipped:]
    assert len(run.batches.training) == len(expected)
    for one, other in zip(run.batches.training, expected, strict=True):
        assert_identical(one, other)
