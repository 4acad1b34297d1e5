from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from mixup_hf.config import DataConfig
from mixup_hf.data.tables import LabelledTexts, draw_shots, read_splits, read_table, read_validation
from mixup_hf.errors import InvalidInput

TEXTS, LABELS = ["the bank, up", 'a "new" game', "naïve — film"], ["biz", "sport", "film"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def to_file(name: str, content: str) -> Path:
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return to_file


def read(path: Path) -> LabelledTexts:
    return read_table(path, "text", "label")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
def test_all_formats_read_alike(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    table = Dataset.from_dict({"label": LABELS, "text": TEXTS, "more": [1, 2, 3]})
    if suffix == "csv":
        table.to_csv(path)
    elif suffix == "parquet":
        table.to_parquet(path)
    elif suffix == "json":
        path.write_text(json.dumps(list(table)))
    else:
        table.to_json(path)
    assert read(path) == LabelledTexts(TEXTS, LABELS)


def test_a_file_is_read_and_not_what_its_name_matches(
    write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    write("train1.csv", "text,label\nwrong,x\n")
    assert read(write("train[1].csv", "text,label\nright,y\n")).texts == ["right"]


def test_a_file_is_read_again_when_it_has_changed_whatever_its_time(
    write: Callable[[str, str], Path],
) -> None:
    """As `cp -p` and `rsync -t` leave it."""
    for text in ("before", "after"):
        path = write("rows.csv", f"text,label\n{text},x\n")
        os.utime(path, (1e9, 1e9))
        assert read(path).texts == [text]


def test_columns_are_those_that_are_named(write: Callable[[str, str], Path]) -> None:
    path = write("rows.csv", "body,text,class\nreal,wrong,x\nalso real,wrong,y\n")
    assert read_table(path, "body", "class") == LabelledTexts(["real", "also real"], ["x", "y"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nBank holds, again,business\nHenman wins, at last,sport\n", "line 2, has 3"),
        ("text,label\na,x\nb,y,\n", "line 3, has 3 fields, but the header 2"),
        ("text,label,label\na,x,y\nb,y,x\n", "label"),
    ],
)
def test_rows_whose_fields_would_shift_are_refused(
    write: Callable[[str, str], Path], content: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(write("rows.csv", content))


def test_whole_numbers_are_class_indices(write: Callable[[str, str], Path]) -> None:
    assert read(write("rows.csv", "text,label\na b,1\nc d,0\n")).labels == [1, 0]


def test_a_class_label_column_is_read_by_its_names(tmp_path: Path) -> None:
    features = Features(text=Value("string"), label=ClassLabel(names=["neg", "pos"]))
    table = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    table.to_parquet(tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet").labels == ["pos", "neg"]


@pytest.mark.parametrize("column", ["text", "label"])
def test_a_missing_column_is_named_with_those_there_are(
    write: Callable[[str, str], Path], column: str
) -> None:
    columns = {"text": "text", "label": "label", column: "nope"}
    path = write("rows.csv", "text,label\na,b\n")
    with pytest.raises(ValueError, match=rf"`{column}_column`.*\(text, label\), but got 'nope'"):
        read_table(path, columns["text"], columns["label"])


@pytest.mark.parametrize("blank", ["", "   "])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_empty_text_is_named_by_its_row(
    write: Callable[[str, str], Path], suffix: str, blank: str
) -> None:
    rows = [{"text": "a b", "label": "x"}, {"text": blank, "label": "y"}]
    content = (
        "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows)
        if suffix == "csv"
        else "".join(json.dumps(row) + "\n" for row in rows)
    )
    with pytest.raises(ValueError, match=r"no empty or whitespace-only text, but 1 of 2.*rows 1"):
        read(write(f"rows.{suffix}", content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", "text,label\na,x\nb,\nc,\n"),
        ("rows.csv", "text,label\na,1\nb,\nc,\n"),
        ("rows.jsonl", '{"text": "a", "label": "x"}\n{"text": "b"}\n{"text": "c", "label": null}'),
    ],
)
def test_missing_labels_are_counted_and_the_first_row_named(
    write: Callable[[str, str], Path], name: str, content: str
) -> None:
    with pytest.raises(ValueError, match="no label in 2 of 3 rows, the first is row 1"):
        read(write(name, content))


@pytest.mark.parametrize("word", ["None", "null", "NA", "nan", "N/A"])
def test_words_that_some_tools_take_for_a_missing_value_are_words(
    write: Callable[[str, str], Path], word: str
) -> None:
    path = write("rows.csv", f"text,label\n{word},{word}\na b,x\n")
    assert read(path) == LabelledTexts([word, "a b"], [word, "x"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", "text,label\na,b\n"),
        ("rows.json", "text,label\na,b\n"),
        ("rows.parquet", "text,label\na,b\n"),
    ],
)
def test_content_that_does_not_fit_the_suffix_is_named_with_the_way_out(
    write: Callable[[str, str], Path], name: str, content: str
) -> None:
    path = write(name, content)
    with pytest.raises(ValueError, match="cannot be read as .*content match its suffix") as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_line_in_another_encoding_is_named(tmp_path: Path) -> None:
    """Such a json file is read, and a row of it cannot be looked at."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a", "label": "x"}\n{"text": "\xe4rger", "label": "y"}\n')
    with pytest.raises(ValueError, match="rows.jsonl, line 2, is not text in UTF-8.*Convert it"):
        read(path)


def test_a_csv_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"PAR1\xff\xfe\x80\n\x9c")
    with pytest.raises(ValueError, match=r"line 1, is not text in UTF-8"):
        read(path)


def test_another_suffix_is_refused_with_those_that_are_read(
    write: Callable[[str, str], Path],
) -> None:
    with pytest.raises(ValueError, match=r"end in one of \.csv, \.jsonl, .*but got '.*rows\.txt'"):
        read(write("rows.txt", "text,label\na,b\n"))


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file '.*nowhere\.csv'"):
        read(tmp_path / "nowhere.csv")


def test_splits_are_read_from_two_files(write: Callable[[str, str], Path]) -> None:
    train = write("train.csv", "text,label\na,x\nb,y\n")
    test = write("test.jsonl", '{"text": "c", "label": "x"}\n')
    config = DataConfig(train_file=str(train), test_file=str(test))
    assert read_splits(config) == (
        LabelledTexts(["a", "b"], ["x", "y"]),
        LabelledTexts(["c"], ["x"]),
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", "", "rows.jsonl is empty"),
        ("rows.csv", "\n", "rows.csv is empty"),
        ("rows.csv", "text,label\n", "rows.csv has a header but no rows"),
    ],
)
def test_files_without_rows_are_named(
    write: Callable[[str, str], Path], name: str, content: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(name, content))


@pytest.mark.parametrize("path", ["data/x.txt", "rows.csv", "./rows", "a/b/c"])
def test_a_mistyped_path_is_not_taken_for_a_hub_id(path: str) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_table(path, "text", "label")


def glue(split: str) -> Dataset:
    features = Features(text=Value("string"), label=ClassLabel(names=["pos", "neg"]))
    labels = {"train": [0, 1], "validation": [1, 1], "test": [-1, -1]}[split]
    return Dataset.from_dict({"text": ["a", "b"], "label": labels}, features=features)


def test_a_hub_data_set_is_read_with_its_configuration_and_splits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def fake(path: str, name: str | None, *, split: str, revision: str | None) -> Dataset:
        asked.append((path, name, split, revision))
        if split == "nope":
            raise ValueError("Unknown split 'nope'. Should be one of ['train', 'validation'].")
        return glue(split)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    config = DataConfig(dataset="own/glue", name="sst2", revision="v1", test_split="validation")
    train, test = read_splits(config)
    assert asked == [("own/glue", "sst2", "train", "v1"), ("own/glue", "sst2", "validation", "v1")]
    assert (train.labels, test.labels) == (["pos", "neg"], ["neg", "neg"])
    assert train.names == ("pos", "neg")  # as declared, not sorted
    with pytest.raises(ValueError, match="no label in 2 of 2 rows.*a split that has labels"):
        read_splits(DataConfig(dataset="own/glue", name="sst2"))
    with pytest.raises(ValueError, match="cannot be loaded.*Unknown split.*'validation'") as caught:
        read_splits(DataConfig(dataset="own/glue", train_split="nope"))
    assert "`data.train_split`" in caught.value.__notes__[0]


def test_a_saved_folder_is_read_by_its_splits(tmp_path: Path) -> None:
    DatasetDict(train=glue("train"), validation=glue("validation")).save_to_disk(tmp_path / "dict")
    glue("train").save_to_disk(tmp_path / "one")
    config = DataConfig(dataset=str(tmp_path / "dict"), test_split="validation")
    assert [table.labels for table in read_splits(config)] == [["pos", "neg"], ["neg", "neg"]]
    assert read(tmp_path / "one").labels == ["pos", "neg"]
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'validation'"):
        read_splits(DataConfig(dataset=str(tmp_path / "dict")))
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\na,x\nb,y\n")
    for alone in (tmp_path / "one", rows):  # its rows would be training and test rows
        with pytest.raises(ValueError, match="`data.dataset` must have splits"):
            read_splits(DataConfig(dataset=str(alone)))
    held = DataConfig(dataset=str(tmp_path / "dict"), validation_split="validation")
    assert read_validation(held) == LabelledTexts(["a", "b"], ["neg", "neg"], ("pos", "neg"))


def test_datasets_and_data_frames_are_read_directly() -> None:
    table = glue("train")
    assert read_table(table, "text", "label").labels == ["pos", "neg"]
    assert read_table(DatasetDict(train=table), "text", "label").labels == ["pos", "neg"]
    frame = pandas.DataFrame({"text": ["a", "b"], "label": [1, 0]})
    assert read_table(frame, "text", "label") == LabelledTexts(["a", "b"], [1, 0])
    with pytest.raises(TypeError, match="but got int"):
        read_table(3, "text", "label")


def test_multi_label_classes_are_read_by_their_names() -> None:
    classes = datasets.Sequence(ClassLabel(names=["red", "blue"]))
    table = Dataset.from_dict(
        {"text": ["a", "b"], "label": [[1, 0], []]},
        features=Features(text=Value("string"), label=classes),
    )
    assert read_table(table, "text", "label").labels == [["blue", "red"], []]


def make_table(counts: dict[Any, int]) -> LabelledTexts:
    labels = [label for label, count in counts.items() for _ in range(count)]
    labels = labels[::2] + labels[1::2]  # not sorted by class
    return LabelledTexts([f"text {row}" for row in range(len(labels))], labels)


def test_shots_are_that_many_rows_of_each_class_in_the_order_of_the_source() -> None:
    table = make_table({"a": 10, "b": 7, "c": 5})
    drawn = draw_shots(table, 5, seed=0)
    assert Counter(drawn.labels) == {"a": 5, "b": 5, "c": 5}
    rows = [table.texts.index(text) for text in drawn.texts]
    assert rows == sorted(set(rows))
    assert drawn.labels == [table.labels[row] for row in rows]


def test_shots_are_a_function_of_the_seed() -> None:
    table = make_table({0: 50, 1: 50})
    assert draw_shots(table, 5, seed=1) == draw_shots(table, 5, seed=1)
    assert draw_shots(table, 5, seed=1) != draw_shots(table, 5, seed=2)


def test_all_rows_can_be_drawn() -> None:
    table = make_table({0: 4, 1: 4})
    assert draw_shots(table, 4, seed=0) == table


def test_too_few_rows_for_the_shots_are_named_with_their_class() -> None:
    with pytest.raises(ValueError, match="`data.shots` must be at most 3, the rows of class 'b'"):
        draw_shots(make_table({"a": 10, "b": 3}), 4, seed=0)
