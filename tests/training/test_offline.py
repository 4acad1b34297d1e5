"""Training on generated rows from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mixed_files import INDICES, NAMES, TEXTS, MixedFile, make_mixed
from tiny import make_inverter, make_producer, word_tokenizer
from trainer_runs import LABELS, Run, assert_close, assert_identical, make_run, weights

from mixup_hf import InversedMixup, MixupConfig, OfflineMixup
from mixup_hf.generation.replay import RecordedRows
from mixup_hf.judging.leaks import LeakError
from mixup_hf.types import MixedExample


@pytest.fixture
def rows() -> list[MixedExample]:
    return make_mixed()


@pytest.fixture
def write(tmp_path: Path, rows: list[MixedExample]) -> MixedFile:
    return MixedFile(tmp_path / "rows.jsonl", rows)


def offline_run(folder: Path, file: Path, **settings: Any) -> Run:
    names = [NAMES[label] for label in INDICES]
    mixup = OfflineMixup(file, TEXTS, names, config=MixupConfig(**settings))
    kwargs = mixup.trainer_kwargs(word_tokenizer(classifier=True))
    run = make_run(folder, rows=12, num_train_epochs=2, save_strategy="epoch", trainer=kwargs)
    run.callback = kwargs["callbacks"][0]
    return run


def test_training_on_the_file_is_training_on_the_rows(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    made = make_producer(12, LABELS).produce(0, 12)
    online = make_run(
        tmp_path / "online",
        rows=12,
        producer=make_producer(12, LABELS),
        callback={"refill_every": 0, "rows_per_refill": 12},
        num_train_epochs=2,
    ).train()
    offline = offline_run(tmp_path / "offline", write(made), refill_every=0).train()
    assert sum(count for _, count in offline.used()) == 24
    assert_close(weights(offline.model), weights(online.model))
    assert offline.used() == online.used()


def test_with_a_curriculum_every_row_of_the_file_is_used_before_one_is_used_twice(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    """Two epochs of 12 places; the ramp fills 3 and 9 of them."""
    file = write(make_producer(12, LABELS).produce(0, 12))
    run = offline_run(tmp_path / "offline", file, curriculum="ramp").train()
    assert [count for _, count in run.used()] == [1] * 12


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, write: Callable[..., Path]) -> None:
    whole = offline_run(tmp_path / "whole", write()).train()
    again = offline_run(tmp_path / "whole", write())
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert_identical(weights(again.model), weights(whole.model))


def test_a_run_is_not_resumed_with_other_rows(tmp_path: Path, write: Callable[..., Path]) -> None:
    offline_run(tmp_path / "run", write()).train()
    again = offline_run(tmp_path / "run", write(text="another sentence"))
    with pytest.raises(ValueError, match="rows_file"):
        again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))


def test_rows_that_are_nearly_evaluation_texts_never_reach_training(
    write: Callable[..., Path], rows: list[MixedExample], caplog: pytest.LogCaptureFixture
) -> None:
    leaked = rows[2].text
    mixup = OfflineMixup(write(), TEXTS, [NAMES[at] for at in INDICES], eval_texts=[leaked])
    assert isinstance(mixup.producer, RecordedRows)
    assert leaked not in [row.text for row in mixup.producer.rows]
    assert len(mixup.producer.rows) < len(rows)
    assert "nearly equal evaluation texts, and left out" in caplog.text
    with pytest.raises(LeakError, match="leaks: drop"):
        OfflineMixup(
            write(),
            TEXTS,
            [NAMES[at] for at in INDICES],
            eval_texts=[leaked],
            config=MixupConfig(leaks="fail"),
        )


def test_rows_are_made_or_taken_from_a_file_but_not_both() -> None:
    with pytest.raises(ValueError, match="OfflineMixup"):
        InversedMixup(make_inverter(), TEXTS, INDICES, config=MixupConfig(rows_file="rows.jsonl"))
    with pytest.raises(ValueError, match="OfflineMixup"):  # and not that there is no such aligner
        InversedMixup.from_pretrained("nowhere", TEXTS, INDICES, rows_file="rows.jsonl")
    with pytest.raises(ValueError, match="`rows_file` = 'rows.jsonl' is incompatible"):
        MixupConfig(rows_file="rows.jsonl", background=True)
