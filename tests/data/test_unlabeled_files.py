from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset

from mixup_hf import errors
from mixup_hf.data.text_pairs import join_sides
from mixup_hf.data.unlabeled_files import read_texts


def test_lines_of_a_file_without_the_blank_ones(tmp_path: Path) -> None:
    file = tmp_path / "more.txt"
    file.write_bytes("\ufeffone text\r\n\n  another\u2028one \n".encode())
    assert read_texts(file) == ["one text", "another\u2028one"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_column_of_a_table_needs_no_label(tmp_path: Path, suffix: str) -> None:
    table = Dataset.from_dict({"q": ["one", "two"], "other": ["three", "four"]})
    file = tmp_path / f"more.{suffix}"
    {"csv": table.to_csv, "jsonl": table.to_json, "parquet": table.to_parquet}[suffix](str(file))
    assert read_texts(file, "q") == ["one", "two"]
    pairs = join_sides("pairs", [("one", "three"), ("two", "four")])
    assert read_texts(file, "q", "other") == pairs
    with pytest.raises(errors.InvalidInput, match="`text_column` must be a column"):
        read_texts(file)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.MissingFile):
        read_texts(tmp_path / "none.txt")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(errors.InvalidInput, match="is empty"):
        read_texts(empty)
    with pytest.raises(errors.InvalidInput, match="table where rows are pairs"):
        read_texts(empty, "a", "b")
    empty.write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(errors.InvalidInput, match="UTF-8"):
        read_texts(empty)
