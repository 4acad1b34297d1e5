"""Files of generated rows, as users read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mixed_files import INDICES, NAMES, TEXTS, MixedFile, make_mixed
from tiny import make_inverter

from mixup_hf import InversedMixup, MixupConfig, OfflineMixup
from mixup_hf.data.row_files import digest, mixed_json, read_mixed
from mixup_hf.data.row_formats import read_records, read_run
from mixup_hf.data.row_writer import rows_dataset, select, write_rows
from mixup_hf.data.targets import MULTI_LABEL, SINGLE_LABEL
from mixup_hf.errors import InvalidInput
from mixup_hf.generation.replay import RecordedRows
from mixup_hf.types import MixedExample


@pytest.fixture
def rows() -> list[MixedExample]:
    return make_mixed()


@pytest.fixture
def write(tmp_path: Path, rows: list[MixedExample]) -> MixedFile:
    return MixedFile(tmp_path / "rows.jsonl", rows)


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
    mixup = InversedMixup(
        make_inverter(), texts, INDICES, config=MixupConfig(chunk_size=4, max_new_tokens=8)
    )
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
        ({"parents": [0, 99]}, r"line 1, was generated from other texts: its parents \[0, 99\]"),
        ({"parent_texts": ["a test text", "b"]}, "are \\['a test text', 'b'\\], but here"),
        (
            {"soft_label": {"business": 1.0, "tech": 0.0}},
            "its classes are .*'tech'.* those of",
        ),
        ({"text": None}, "line 1, is not a generated row"),
        ({"unheard_of": 1, "parents": 3}, "line 1, is not a generated row"),
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
    with pytest.raises(ValueError, match="line 6, is not JSON"):
        read_mixed(file, TEXTS, NAMES)


def test_no_file_and_no_rows_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="mixup-hf augment"):
        read_mixed(tmp_path / "none.jsonl", TEXTS, NAMES)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="has no rows"):
        read_mixed(tmp_path / "empty.jsonl", TEXTS, NAMES)


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet", "dataset"])
@pytest.mark.parametrize("parents", [True, False])
def test_every_format_round_trips(
    tmp_path: Path, rows: list[MixedExample], format: str, parents: bool
) -> None:
    odd = replace(
        rows[0],
        text='a "quoted", text\nof two\u2028lines 🔥',
        judges={"knn": (0.2, 0.3, 0.5)},
        votes={"encoder": (0.1, 0.2, 0.7), "llm": (0.6, 0.3, 0.1)},
    )
    given = [rows[1], odd, *rows[2:]]  # the first row has no judges
    records = [mixed_json(row, TEXTS if parents else None, NAMES) for row in given]
    if format == "dataset":
        source: Any = rows_dataset(records)
    else:
        source = tmp_path / f"rows.{format}"
        write_rows(source, records, run={"texts_sha256": digest(TEXTS)})
    assert [record for _, record in read_records(source)] == records
    assert read_mixed(source, TEXTS, NAMES) == [rounded(row) for row in given]


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_a_row_of_text_and_label_is_enough(
    tmp_path: Path, rows: list[MixedExample], format: str, caplog: pytest.LogCaptureFixture
) -> None:
    records = [select(mixed_json(row, None, NAMES), ["text", "label"]) for row in rows]
    assert [list(record) for record in records] == [["text", "label"]] * 6
    file = tmp_path / f"rows.{format}"
    write_rows(file, records)
    read = read_mixed(file, TEXTS, NAMES)
    assert [row.text for row in read] == [row.text for row in rows]
    assert [row.hard_label for row in read] == [row.hard_label for row in rows]
    assert "do not record which texts" in caplog.text
    by_index = [mixed_json(row, None, NAMES, indices=True) for row in rows]
    write_rows(file, [select(record, ["text", "label"]) for record in by_index])
    assert [row.label for row in read_mixed(file, TEXTS, NAMES)] == [row.label for row in read]


def test_no_provenance_and_no_parents_leave_them_out(rows: list[MixedExample]) -> None:
    assert list(select(mixed_json(rows[0], TEXTS, NAMES), provenance="none")) == [
        "text",
        "label",
        "soft_label",
    ]
    assert "parent_texts" not in mixed_json(rows[0], None, NAMES)
    with pytest.raises(ValueError, match="`columns` must be one of"):
        select({}, ["texts"])


def test_labels_of_other_tasks(rows: list[MixedExample], tmp_path: Path) -> None:
    several = replace(rows[0], label=(0.7, 0.2, 0.9))
    shown = mixed_json(several, None, NAMES, problem_type="multi_label_classification")
    assert shown["label"] == ["business", "sport"]
    number = mixed_json(replace(rows[0], label=(2.5,)), None, ["value"], problem_type="regression")
    assert number["label"] == 2.5
    for format in ("jsonl", "csv", "parquet"):
        file = tmp_path / f"rows.{format}"
        write_rows(file, [select(shown, ["text", "label"])])
        assert read_mixed(file, TEXTS, NAMES)[0].label == (1.0, 0.0, 1.0)
        write_rows(file, [select(number, ["text", "label"])])
        assert read_mixed(file, TEXTS, ["value"])[0].label == (2.5,)


def test_rows_without_parent_texts_are_checked_by_the_settings_file(
    tmp_path: Path, rows: list[MixedExample]
) -> None:
    file = tmp_path / "rows.jsonl"
    records = [mixed_json(row, None, NAMES) for row in rows]
    write_rows(file, records, run={"texts_sha256": digest(TEXTS)})
    assert read_mixed(file, TEXTS, NAMES)
    with pytest.raises(ValueError, match="generated from other texts"):
        read_mixed(file, TEXTS[::-1], NAMES)
    write_rows(file, records)  # and the old settings are gone
    assert read_run(file) == {}


def test_a_file_that_is_not_of_its_format_says_so(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("x")
    with pytest.raises(ValueError, match="is not a parquet file"):
        read_mixed(tmp_path / "rows.parquet", TEXTS, NAMES)
    (tmp_path / "rows.csv").write_text("text,soft_label\na,{cut\n")
    with pytest.raises(ValueError, match="rows.csv, row 1, is not a generated row"):
        read_mixed(tmp_path / "rows.csv", TEXTS, NAMES)
    with pytest.raises(ValueError, match="`format` must be one of"):
        write_rows(tmp_path / "rows.txt", [{"text": "a", "label": 0}])


def test_a_file_that_is_not_there_and_the_folder_of_a_run(
    tmp_path: Path, rows: list[MixedExample]
) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file of generated rows .* augment` writes"):
        list(read_records(tmp_path / "rows.jsonl"))
    write_rows(tmp_path / "mixed.jsonl", [mixed_json(row, None, NAMES) for row in rows])
    with pytest.raises(FileNotFoundError, match=r"Give .*mixed\.jsonl"):
        OfflineMixup(tmp_path)


@pytest.mark.parametrize(
    ("label", "names", "held"),
    [
        (1, ("1", "2", "3"), [0, 1, 0]),  # a class index, whatever the classes are called
        ("1", ("1", "2", "3"), [1, 0, 0]),
        ("1", ("a", "b", "c"), [0, 1, 0]),
        ([0, 1, 1], ("a", "b", "c"), [0, 1, 1]),  # one 0 or 1 for each class
        ([1, 2], ("a", "b", "c"), [0, 1, 1]),
        ([1, 0], ("a", "b"), [1, 0]),
    ],
)
def test_labels_without_shares_are_read_as_they_are_written(
    tmp_path: Path, label: Any, names: tuple[str, ...], held: list[int]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": "new", "label": label}) + "\n")
    kind = MULTI_LABEL if isinstance(label, list) else SINGLE_LABEL
    (row,) = read_mixed(file, ["x", "y"], names, problem_type=kind)
    assert list(row.label) == held


@pytest.mark.parametrize("label", [[0, 1], 7])
def test_a_label_that_could_be_either_or_none_is_refused(tmp_path: Path, label: Any) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": "new", "label": label}) + "\n")
    kind = MULTI_LABEL if isinstance(label, list) else SINGLE_LABEL
    with pytest.raises(InvalidInput, match=r"soft_label|its label is 7"):
        read_mixed(file, ["x", "y"], ("a", "b"), problem_type=kind)
