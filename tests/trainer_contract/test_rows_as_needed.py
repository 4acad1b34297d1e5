"""Rows are made as training needs them, and every one is used before one is used twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import make_producer
from trainer_runs import LABELS, Run, assert_identical, make_run, weights

from mixup_hf.generation.generator import Producer
from mixup_hf.generation.once import Once
from mixup_hf.types import MixedExample

ROWS = 24


class ChunkNotes(Producer):
    """Notes which chunks it decodes, and how large they are."""

    def __init__(self, producer: Producer) -> None:
        self.__dict__.update(producer.__dict__)
        self.made: list[tuple[int, int]] = []

    def chunk(self, epoch: int, chunk: int, num_rows: int) -> list[MixedExample]:
        rows = super().chunk(epoch, chunk, num_rows)
        self.made.append((epoch, len(rows)))
        return rows


def prepare(folder: Path, rows: int = ROWS, **settings: Any) -> Run:
    chunk_size = settings.pop("chunk_size", 4)
    producer = ChunkNotes(make_producer(rows, LABELS, chunk_size=chunk_size))
    return make_run(folder, rows=rows, producer=producer, **settings)


def positions(run: Run) -> list[list[int]]:
    """Pool rows of every training batch."""
    return [
        [at for at in batch["mixup_rows"].tolist() if at >= 0] for batch in run.batches.training
    ]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_max_steps_bounds_what_is_made(tmp_path: Path, workers: int, background: bool) -> None:
    """Five steps on 6,908 rows used to wait for all 6,908 sentences."""
    run = prepare(
        tmp_path,
        rows=400,
        chunk_size=64,
        max_steps=2,
        dataloader_num_workers=workers,
        callback={"background": background},
    ).train()
    # Two batches of four are trained on; the loader asks for one more, and for two per worker.
    asked_for = 4 * (2 + 1 + 2 * workers)
    made = [count for _, count in run.producer.made]
    assert made == [8, 16, 32][: len(made)]
    assert sum(made[:-1]) < asked_for <= sum(made)


def test_the_first_batch_waits_for_small_chunks_only(tmp_path: Path) -> None:
    run = prepare(tmp_path, rows=400, chunk_size=64)
    made_before_first_batch = []

    def note(*args: Any, **kwargs: Any) -> None:
        made_before_first_batch.append(sum(count for _, count in run.producer.made))

    run.model.register_forward_pre_hook(note)
    run.train()
    assert made_before_first_batch[0] == 8
    assert sum(count for _, count in run.producer.made) == 400


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [4, 5, 24, 32])
def test_every_row_is_used_exactly_once(tmp_path: Path, every: int, batch_size: int) -> None:
    """With 25 rows in one batch and `refill_every=5`, only 25 of 125 rows used to be drawn."""
    run = prepare(
        tmp_path,
        callback={"refill_every": every},
        per_device_train_batch_size=batch_size,
        num_train_epochs=6,
    ).train()
    assert sum(count for _, count in run.producer.made) == 6 * ROWS
    assert [count for _, count in run.callback.used_rows()] == [1] * 6 * ROWS


@pytest.mark.parametrize(("ratio", "batch_size"), [(0.3, 1), (0.05, 8), (0.1, 4), (0.75, 5)])
def test_the_ratio_holds_for_any_batch_size(tmp_path: Path, ratio: float, batch_size: int) -> None:
    """Batches of one row with a ratio of 0.3 used to get no mixed row at all."""
    run = prepare(
        tmp_path,
        collator={"mix_ratio": ratio},
        per_device_train_batch_size=batch_size,
        num_train_epochs=4,
    ).train()
    mixed = sum(len(batch) for batch in positions(run))
    assert abs(mixed - 4 * ROWS * ratio / (1 - ratio)) < 1
    assert len(run.callback.used_rows()) == mixed


@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_accumulation_and_workers_change_nothing_in_what_is_drawn(
    tmp_path: Path, accumulation: int, workers: int
) -> None:
    run = prepare(
        tmp_path,
        rows=22,
        gradient_accumulation_steps=accumulation,
        dataloader_num_workers=workers,
        num_train_epochs=2,
    ).train()
    epoch = [list(range(at, min(at + 4, 22))) for at in range(0, 22, 4)]
    assert positions(run) == epoch * 2


def test_rows_are_used_again_only_after_all_were_used(tmp_path: Path) -> None:
    run = prepare(
        tmp_path, callback={"refill_every": 0, "rows_per_refill": 10}, num_train_epochs=2
    ).train()
    drawn = [at for batch in positions(run) for at in batch]
    assert drawn[:10] == list(range(10))
    for start in range(0, len(drawn) - 9, 10):
        assert sorted(drawn[start : start + 10]) == list(range(10))
    assert drawn[10:20] != drawn[:10]


@pytest.mark.parametrize("step", [1, 3, 4, 9])
def test_a_resume_within_a_refill_goes_on_with_its_next_row(tmp_path: Path, step: int) -> None:
    settings: dict[str, Any] = {
        "callback": {"refill_every": 2},
        "collator": {"mix_ratio": 0.4},
        "num_train_epochs": 2,
        "save_strategy": "steps",
        "save_steps": 1,
    }
    whole = prepare(tmp_path, **settings).train()
    again = prepare(tmp_path, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert positions(again) == positions(whole)[step:]
    assert again.used() == whole.used()
    assert_identical(weights(again.model), weights(whole.model))
    made = sum(count for _, count in again.producer.made)
    assert made < sum(count for _, count in whole.producer.made)


class CopiesTheFirst:
    """A gate that puts a training row in the place of the first of a chunk."""

    def review(self, rows: list[MixedExample], redraw: Any) -> list[MixedExample]:
        return [replace(rows[0], events=("degenerate",), mitigation="parent"), *rows[1:]]


def test_copies_of_training_rows_are_printed_and_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that configures no logging used to learn nothing of them."""
    run = prepare(tmp_path)
    run.callback.producer.gate = Once(CopiesTheFirst)
    run.train()
    assert run.logged("mixup_hf/copied_rate")[-1] == 0.25  # chunks hold four rows
    assert "Copies of training rows, every redraw being doubtful too: 6" in capsys.readouterr().err


def test_what_was_generated_stands_in_the_logs(tmp_path: Path) -> None:
    run = prepare(tmp_path).train()
    assert run.logged("mixup_hf/rows_made")[-1] == ROWS
    assert run.logged("mixup_hf/doubtful_rate")[-1] == 0
    assert all(seconds >= 0 for seconds in run.logged("mixup_hf/seconds_waited"))
