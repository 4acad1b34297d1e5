"""Generated rows as the library stores them."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path

import pytest
from tiny import make_producer
from trainer_runs import LABELS

from mixup_hf.data.rows import SCHEMA, has_rows, open_rows, save_rows
from mixup_hf.types import MixedExample


@pytest.fixture
def rows() -> list[MixedExample]:
    return make_producer(12, LABELS).produce(0, 6)


def test_every_field_of_a_row_has_a_column() -> None:
    assert SCHEMA.names == [field.name for field in fields(MixedExample)]


@pytest.mark.parametrize("text", ["plain", "“quoted” — naïve 🔥", "a\nb\r\nc", "a\u2028b\x1e"])
def test_saved_rows_are_opened_unchanged(
    tmp_path: Path, rows: list[MixedExample], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixup_hf.data.rows._BATCH", 4)  # six rows: two batches
    judged = replace(rows[0], text=text, events=("intrusion",), judges={"knn": (0.1, 0.2, 0.7)})
    judged = replace(judged, votes={"llm": (0.2, 0.3, 0.5)})
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
