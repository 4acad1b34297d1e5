"""Labelled texts from files, folders, the Hub, `datasets` and pandas, checked before any model."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixup_hf import errors
from mixup_hf.config import DataConfig
from mixup_hf.data.columns import require_column, texts_of
from mixup_hf.data.file_checks import refuse_unreadable, refuse_without_splits
from mixup_hf.data.label_checks import is_missing, warn_conflicts
from mixup_hf.data.row_formats import refuse_twice
from mixup_hf.data.sources import fetch_embedded, is_embedded
from mixup_hf.data.wheels import file_sha256
from mixup_hf.runtime import counter_rng

if TYPE_CHECKING:
    from datasets import Dataset

_READERS = {".csv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_FILE = re.compile(r".*\.[A-Za-z]{2,8}")  # names like a file, though a Hub id may hold a dot


@dataclass(frozen=True)
class LabelledTexts:
    """Texts (N) with their labels (N), as they stand in the source.

    Attributes:
        texts: The texts; pairs of texts as `join_sides` makes them.
        labels: Their labels.
        names: The classes in the order of the source, where the source declares them.
    """

    texts: list[str]
    labels: list[Any]
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> LabelledTexts:
        """The given rows, in the given order."""
        texts, labels = [self.texts[i] for i in rows], [self.labels[i] for i in rows]
        return LabelledTexts(texts, labels, self.names)


def read_table(
    source: Any,
    text_column: str,
    label_column: str,
    text_pair_column: str | None = None,
    *,
    name: str | None = None,
    split: str = "train",
    revision: str | None = None,
) -> LabelledTexts:
    """Read labelled texts from any source.

    Args:
        source: A csv, jsonl, json or parquet file; a folder written by `save_to_disk`; an embedded
            data set (`bbc_headlines`); a Hub id; a `datasets.Dataset`; a pandas `DataFrame`.
        text_column: Column of the text.
        label_column: Column of the label.
        text_pair_column: Column of the second text, where rows are pairs.
        name: Configuration of a Hub data set, such as `sst2` of `glue`.
        split: Split of a data set; not used for files.
        revision: Revision of a Hub data set.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: The source cannot be read, is empty, or lacks the column, a text or a label.
    """
    table, where = open_table(source, name, split, revision)
    if not len(table):
        raise errors.InvalidInput(f"{where} has no rows. Is it the right file or split?")
    return _columns(where, table, text_column, label_column, text_pair_column)


def read_splits(config: DataConfig) -> tuple[LabelledTexts, LabelledTexts]:
    """All training and test rows of a data config."""
    if config.dataset is None:
        return _read(config, config.train_file), _read(config, config.test_file)
    return (
        _read(config, config.dataset, "train_split"),
        _read(config, config.dataset, "test_split"),
    )


def read_validation(config: DataConfig) -> LabelledTexts | None:
    """The validation rows of a data config that come from a file or split; None if none do."""
    if config.validation_file is not None:
        return _read(config, config.validation_file)
    if config.validation_split is not None:
        return _read(config, config.dataset, "validation_split")
    return None


def draw_shots(table: LabelledTexts, shots: int, seed: int) -> LabelledTexts:
    """Draw `shots` rows per class with `seed`, in the order of the source.

    Raises:
        InvalidInput: A class has fewer rows.
    """
    return table.take(rows_per_class("data.shots", table.labels, shots, seed))


def rows_per_class(name: str, labels: Sequence[Any], count: int, seed: int) -> list[int]:
    """Numbers of `count` rows per class, drawn with `seed`, ascending.

    Args:
        name: The setting that asks for them, for the error.
        labels: The labels (N).
        count: Rows per class.
        seed: Seed of the draw.

    Raises:
        InvalidInput: A class has fewer rows.
    """
    rows: list[int] = []
    classes = np.array([str(label) for label in labels])
    for number, each in enumerate(sorted(set(classes.tolist()))):
        members = np.flatnonzero(classes == each)
        if len(members) < count:
            raise errors.bad(name, f"be at most {len(members)}, the rows of class {each!r}", count)
        drawn = counter_rng(seed, number).choice(members, size=count, replace=False)
        rows += [int(row) for row in drawn]
    return sorted(rows)


def _read(config: DataConfig, source: str | None, split: str | None = None) -> LabelledTexts:
    columns = (config.text_column, config.label_column, config.text_pair_column)
    if split is None:
        return read_table(source, *columns)
    refuse_without_splits(config.dataset)
    try:
        return read_table(
            source,
            *columns,
            name=config.name,
            split=getattr(config, split),
            revision=config.revision,
        )
    except errors.InvalidInput as error:
        error.add_note(f"The split was set by `data.{split}`.")
        raise


def open_table(
    source: Any, name: str | None = None, split: str = "train", revision: str | None = None
) -> tuple[Dataset, str]:
    """The table of a source, and what to call it in messages."""
    from datasets import Dataset, DatasetDict

    if isinstance(source, Dataset):
        return source, "the data set"
    if isinstance(source, DatasetDict):
        return _split_of(source, split, "the data set")
    if type(source).__module__.partition(".")[0] == "pandas":
        return _from_pandas(source), "the DataFrame"
    if not isinstance(source, (str, Path)):
        raise errors.InvalidType(
            "`source` must be a file, a folder, a Hub id, a datasets.Dataset or a pandas "
            f"DataFrame, but got {type(source).__name__}."
        )
    text, path = str(source), Path(source)
    if path.is_dir():
        return _from_folder(path, split)
    if is_embedded(text):
        errors.one_of("split", split, ("train", "test"))
        return _from_file(fetch_embedded(text) / f"{split}.jsonl")
    if path.is_file() or _FILE.fullmatch(text) or not _HUB_ID.fullmatch(text):
        return _from_file(path)
    return _from_hub(text, name, split, revision)


def _from_pandas(frame: Any) -> Dataset:
    from datasets import Dataset

    refuse_twice("the DataFrame", [str(name) for name in frame.columns])
    try:
        return Dataset.from_pandas(frame, preserve_index=False)
    except Exception as error:  # pyarrow and datasets raise many kinds
        raise errors.InvalidInput(
            f"The DataFrame cannot be read ({type(error).__name__}: {error}). Every column needs "
            "values of one type: convert them, or drop the columns that are not needed."
        ) from error


def _from_file(file: Path) -> tuple[Dataset, str]:
    from datasets import load_dataset

    if not file.is_file():
        raise errors.MissingFile(f"There is no file {str(file)!r}.")
    if file.suffix not in _READERS:
        raise errors.bad("file", f"end in one of {', '.join(_READERS)}", str(file))
    refuse_unreadable(file)
    # "NA" or "None" in a csv file is a word like any other.
    options: dict[str, Any] = {"keep_default_na": False} if file.suffix == ".csv" else {}
    kind = _READERS[file.suffix]
    # `datasets` takes a name for a pattern, and knows a file it has read again by its time alone.
    options |= {"data_files": glob.escape(str(file)), "name": f"sha256-{file_sha256(file)[:16]}"}
    try:
        return load_dataset(kind, split="train", **options), str(file)
    except Exception as error:  # the readers raise many kinds, none of which names the cause
        cause = error.__cause__ or error
        raise errors.InvalidInput(
            f"{file} cannot be read as {file.suffix} ({type(cause).__name__}: {cause}). Does its "
            "content match its suffix? Convert it, or rename it."
        ) from error


def _from_folder(folder: Path, split: str) -> tuple[Dataset, str]:
    from datasets import DatasetDict, load_from_disk

    def load() -> Any:
        return load_from_disk(str(folder))

    if not any((folder / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
        return _loaded(str(folder), lambda: _load_split(str(folder), split=split))
    table, where = _loaded(str(folder), load)
    return _split_of(table, split, where) if isinstance(table, DatasetDict) else (table, where)


def _from_hub(
    source: str, name: str | None, split: str, revision: str | None
) -> tuple[Dataset, str]:
    where = f"{source}/{name}" if name else source
    return _loaded(where, lambda: _load_split(source, name, split=split, revision=revision))


def _load_split(*args: Any, **kwargs: Any) -> Dataset:
    from datasets import load_dataset

    return load_dataset(*args, **kwargs)


def _loaded(where: str, load: Callable[[], Any]) -> tuple[Any, str]:
    try:
        return load(), where
    except Exception as error:  # many kinds; their messages list the configurations or splits
        raise errors.InvalidInput(
            f"The data set {where!r} cannot be loaded ({type(error).__name__}: {error}). Check the "
            "name, its configuration (`name`) and the split."
        ) from error


def _split_of(tables: Any, split: str, where: str) -> tuple[Dataset, str]:
    errors.one_of("split", split, list(tables), f"These are the splits of {where}.")
    return tables[split], f"{where} ({split})"


def _columns(
    source: str, table: Dataset, text_column: str, label_column: str, text_pair_column: str | None
) -> LabelledTexts:
    texts = texts_of(source, table, text_column, text_pair_column)
    require_column(source, table, "label_column", label_column)
    labels, names = _labels(table, label_column)
    absent = [row for row, label in enumerate(labels) if is_missing(label)]
    if absent:
        raise errors.InvalidInput(
            f"{source} has no label in {len(absent)} of {len(labels)} rows, the first is row "
            f"{absent[0]}. Drop those rows, or use a split that has labels."
        )
    warn_conflicts(source, texts, labels)
    return LabelledTexts(texts, labels, names)


def _labels(table: Dataset, column: str) -> tuple[list[Any], tuple[str, ...] | None]:
    """The labels of a column, by their names where it declares classes; -1 is a hidden label."""
    labels, feature = list(table[column]), table.features[column]
    if hasattr(feature, "int2str"):
        classes = tuple(feature.names)
        return [_named(classes, label) for label in labels], classes
    inner: Any = getattr(feature, "feature", None)
    if hasattr(inner, "int2str"):  # a list of classes: multi-label
        classes = tuple(inner.names)
        return [label and [_named(classes, each) for each in label] for label in labels], classes
    return labels, None


def _named(classes: tuple[str, ...], label: int | None) -> str | None:
    return None if label is None or label < 0 else classes[label]
