from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixup_hf.data.row_formats import read_records, run_file
from mixup_hf.data.row_writer import RowWriter, write_rows

ROW: dict[str, Any] = {"text": "a text", "label": "sport", "soft_label": {"sport": 1.0, "art": 0.0}}


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_a_file_appears_when_it_is_complete(tmp_path: Path, format: str) -> None:
    file = tmp_path / f"rows.{format}"
    with RowWriter(file, run={"a": 1}) as writer:
        writer.write([ROW])
        writer.write([])
        writer.write([ROW, ROW])
        assert not file.exists()
    assert writer.count == 3
    assert [row for _, row in read_records(file)] == [ROW] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, run_file(file).name]


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_an_interruption_keeps_the_rows_and_the_earlier_file(tmp_path: Path, format: str) -> None:
    file = tmp_path / f"rows.{format}"
    file.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), RowWriter(file) as writer:
        writer.write([ROW])
        raise KeyboardInterrupt
    assert file.read_text() == "earlier"
    assert [row for _, row in read_records(tmp_path / f"rows.partial.{format}")] == [ROW]


def test_an_interruption_without_rows_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RowWriter(tmp_path / "rows.csv"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").mkdir()
    for place, message in (
        (tmp_path / "rows.csv", "not a folder"),
        (tmp_path / "none" / "rows.csv", "there is no folder"),
        (Path("/proc/rows.csv"), "can be written to"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            RowWriter(place)


def test_an_output_that_is_a_link_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "elsewhere" / "real.jsonl", tmp_path / "rows.jsonl"
    real.parent.mkdir()
    real.touch()
    real.with_name("real.jsonl.run.json").write_text("{}")  # of the rows of before
    link.symlink_to(real)
    write_rows(link, [{"text": "a"}], {"seed": 0})
    assert link.is_symlink() and json.loads(real.read_text()) == {"text": "a"}
    assert [path.name for path in tmp_path.rglob("*.run.json")] == ["rows.jsonl.run.json"]
    assert not [*tmp_path.rglob("*.partial*")]
