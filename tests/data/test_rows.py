"""Mixed rows written for users, read again, and trained on without what made them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tiny import make_inverter, make_producer, make_rows, word_tokenizer
from trainer_runs import LABELS, Run, assert_close, assert_identical, make_run, weights

from mixup_hf import InversedMixup, MixupConfig, OfflineMixup
from mixup_hf.data.rows import (
    SCHEMA,
    RecordedRows,
    has_rows,
    mixed_json,
    open_rows,
    read_mixed,
    save_rows,
)
from mixup_hf.judging.leaks import LeakError
from mixup_hf.types import MixedExample

NAMES = ["business", "politics", "sport"]
TEXTS, INDICES = make_rows(12, LABELS)


@pytest.fixture
def rows() -> list[MixedExample]:
    return make_producer(12, LABELS).produce(0, 6)


@pytest.fixture
def write(tmp_path: Path, rows: list[MixedExample]) -> Callable[..., Path]:
    """Writes the rows; changes of the first line as keyword arguments."""

    def written(given: Sequence[MixedExample] = (), **changes: Any) -> Path:
        lines = [mixed_json(row, TEXTS, NAMES) for row in given or rows]
        lines[0] |= changes
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return file

    return written


def test_every_field_of_a_row_has_a_column() -> None:
    assert SCHEMA.names == [field.name for field in fields(MixedExample)]


@pytest.mark.parametrize("text", ["plain", "“quoted” — naïve 🔥", "a\nb\r\nc", "a\u2028b\x1e"])
def test_saved_rows_are_opened_unchanged(
    tmp_path: Path, rows: list[MixedExample], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixup_hf.data.rows._BATCH", 4)  # six rows: two batches
    judged = replace(rows[0], text=text, events=("intrusion",), judges={"knn": (0.1, 0.2, 0.7)})
    given = [judged, *rows[1:]]
    folder = save_rows(tmp_path / "not" / "there" / "yet", given)
    stored = open_rows(folder)
    assert len(stored) == 6
    assert [stored[at] for at in range(6)] == list(stored) == stored[:] == given
    assert stored[-1] == given[-1]
    assert [path.name for path in folder.iterdir()] == ["rows.arrow"]
    with pytest.raises(IndexError):
        stored[6]


def test_saved_rows_pickle_as_their_path(tmp_path: Path, rows: list[MixedExample]) -> None:
    stored = open_rows(save_rows(tmp_path, rows))
    sent = pickle.dumps(stored)
    assert rows[0].text.encode() not in sent
    assert list(pickle.loads(sent)) == rows


def test_rows_are_saved_whole_or_not_at_all(tmp_path: Path, rows: list[MixedExample]) -> None:
    broken = [*rows, replace(rows[0], text=object())]  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError)):
        save_rows(tmp_path, broken)
    assert not has_rows(tmp_path)
    assert list(tmp_path.iterdir()) == []
    save_rows(tmp_path, rows)
    with pytest.raises((TypeError, ValueError)):
        save_rows(tmp_path, broken)
    assert list(open_rows(tmp_path)) == rows


def test_rows_that_were_not_saved_or_are_damaged_are_refused(
    tmp_path: Path, rows: list[MixedExample]
) -> None:
    with pytest.raises(FileNotFoundError, match="holds no saved rows"):
        open_rows(tmp_path)
    with pytest.raises(ValueError, match="at least one generated row"):
        save_rows(tmp_path, [])
    file = save_rows(tmp_path, rows) / "rows.arrow"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match="is damaged"):
        open_rows(tmp_path)


def rounded(row: MixedExample) -> MixedExample:
    return replace(row, label=tuple(round(share, 6) for share in row.label))


def test_rows_are_read_as_they_were_written(
    write: Callable[..., Path], rows: list[MixedExample]
) -> None:
    assert read_mixed(write(), TEXTS, NAMES) == [rounded(row) for row in rows]


def test_the_order_of_the_classes_is_the_models(
    write: Callable[..., Path], rows: list[MixedExample]
) -> None:
    turned = read_mixed(write(), TEXTS, NAMES[::-1])
    assert [row.label[::-1] for row in turned] == [rounded(row).label for row in rows]


def test_what_else_a_line_says_is_left_alone(write: Callable[..., Path]) -> None:
    assert read_mixed(write(times_used=3, run={"data": "x"}, aligner="a"), TEXTS, NAMES)


def test_rows_of_pairs_have_both_sides(tmp_path: Path) -> None:
    texts = [(text, "the court") for text in TEXTS]
    mixup = InversedMixup(make_inverter(), texts, INDICES, config=MixupConfig(chunk_size=4))
    rows = mixup.generate(4)
    file = tmp_path / "pairs.jsonl"
    joined = mixup.producer.texts
    lines = [mixed_json(row, joined, mixup.label_names) for row in rows]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "text_pair" in lines[0]
    offline = OfflineMixup(file, texts, INDICES)
    assert isinstance(offline.producer, RecordedRows)
    assert [row.text for row in offline.producer.rows] == [row.text for row in rows]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parents": [0, 99]}, r"line 1, was made from other texts: its parents \[0, 99\]"),
        ({"parent_texts": ["a test text", "b"]}, "are \\['a test text', 'b'\\], but here"),
        (
            {"label": {"business": 1.0, "tech": 0.0}},
            "its classes are .*'tech'.* those of",
        ),
        ({"text": None}, "line 1, is no mixed row"),
        ({"unheard_of": 1, "parents": 3}, "line 1, is no mixed row"),
    ],
)
def test_rows_that_do_not_belong_here_are_refused(
    write: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_mixed(write(**changes), TEXTS, NAMES)


def test_a_cut_file_says_which_line(write: Callable[..., Path]) -> None:
    file = write()
    file.write_text(file.read_text()[:-20])
    with pytest.raises(ValueError, match="line 6, is no JSON"):
        read_mixed(file, TEXTS, NAMES)


def test_no_file_and_no_rows_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="mixup-hf augment"):
        read_mixed(tmp_path / "none.jsonl", TEXTS, NAMES)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="has no rows"):
        read_mixed(tmp_path / "empty.jsonl", TEXTS, NAMES)


def test_refills_go_through_the_rows_and_begin_again(rows: list[MixedExample]) -> None:
    recorded = RecordedRows(TEXTS, rows)
    asked = [recorded.produce(refill, 4) for refill in range(3)]
    order = [rows.index(row) for refill in asked for row in refill]
    assert order == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert recorded.produce(1, 100) == rows


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
