"""Labelled texts from files and data sets, checked before anything costly starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixup_hf import errors
from mixup_hf.config import DataConfig
from mixup_hf.data.sources import fetch_embedded, is_embedded
from mixup_hf.data.text_pairs import join_sides
from mixup_hf.runtime import counter_rng

_READERS = {".csv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class LabelledTexts:
    """Texts (N) with their labels (N), as they stand in the source."""

    texts: list[str]
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> LabelledTexts:
        """The given rows, in the given order."""
        return LabelledTexts([self.texts[i] for i in rows], [self.labels[i] for i in rows])


def read_table(
    path: str | Path, text_column: str, label_column: str, text_pair_column: str | None = None
) -> LabelledTexts:
    """Read a csv, jsonl or parquet file; pairs of texts come as `join_sides` makes them.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another suffix, content that does not fit the suffix, a missing column, an empty
            text, a missing label.
    """
    from datasets import Dataset, load_dataset

    file = Path(path)
    if not file.is_file():
        raise errors.MissingFile(f"There is no file {str(file)!r}.")
    if file.suffix not in _READERS:
        raise errors.bad("file", f"end in one of {', '.join(_READERS)}", str(file))
    try:
        # "NA" or "None" in a csv file is a word like any other.
        options = {"keep_default_na": False} if file.suffix == ".csv" else {}
        kind = _READERS[file.suffix]
        table = load_dataset(kind, data_files=str(file), split="train", **options)
    except Exception as error:  # the readers raise many kinds, none of which names the cause
        cause = error.__cause__ or error
        raise errors.InvalidInput(
            f"{file} cannot be read as {file.suffix} ({type(cause).__name__}: {cause}). Is it what "
            "its name says? Convert it, or rename it."
        ) from error
    assert isinstance(table, Dataset)
    return _columns(str(file), table, text_column, label_column, text_pair_column)


def read_splits(config: DataConfig) -> tuple[LabelledTexts, LabelledTexts]:
    """Train and test texts of a data config, all of them."""
    columns = (config.text_column, config.label_column, config.text_pair_column)
    if config.dataset is None:
        assert config.train_file is not None and config.test_file is not None
        return read_table(config.train_file, *columns), read_table(config.test_file, *columns)
    if is_embedded(config.dataset):
        folder = fetch_embedded(config.dataset)
        return read_table(folder / "train.jsonl", *columns), read_table(
            folder / "test.jsonl", *columns
        )
    from datasets import load_dataset

    splits = load_dataset(config.dataset, revision=config.revision)
    missing = [name for name in ("train", "test") if name not in splits]
    if missing:
        raise errors.bad(
            "data.dataset", f"have the splits train and test, {missing} missing", config.dataset
        )
    train, test = (_columns(config.dataset, splits[name], *columns) for name in ("train", "test"))
    return train, test


def draw_shots(table: LabelledTexts, shots: int, seed: int) -> LabelledTexts:
    """`shots` rows of each class, drawn with `seed`, in the order of the source.

    Raises:
        ValueError: A class has fewer rows.
    """
    rows: list[int] = []
    labels = np.array([str(label) for label in table.labels])
    for number, name in enumerate(sorted(set(labels.tolist()))):
        members = np.flatnonzero(labels == name)
        if len(members) < shots:
            raise errors.bad(
                "data.shots", f"be at most {len(members)}, the rows of class {name!r}", shots
            )
        drawn = counter_rng(seed, number).choice(members, size=shots, replace=False)
        rows += [int(row) for row in drawn]
    return table.take(sorted(rows))


def _columns(
    source: str, table: Any, text_column: str, label_column: str, text_pair_column: str | None
) -> LabelledTexts:
    wanted = {
        "text_column": text_column,
        "label_column": label_column,
        "text_pair_column": text_pair_column,
    }
    for key, name in wanted.items():
        if name is not None and name not in table.column_names:
            raise errors.bad(
                key, f"be a column of {source} ({', '.join(table.column_names)})", name
            )
    texts, labels = list(table[text_column]), list(table[label_column])
    errors.texts(f"{source}:{text_column}", texts)
    if text_pair_column is not None:
        pairs = list(zip(texts, table[text_pair_column], strict=True))
        texts = join_sides(f"{source}:{text_pair_column}", pairs)
    absent = [row for row, label in enumerate(labels) if label is None or label == ""]
    if absent:
        raise errors.InvalidInput(
            f"{source} has no label in {len(absent)} of {len(labels)} rows, the first is row "
            f"{absent[0]}. Drop those rows."
        )
    feature = table.features[label_column]
    if hasattr(feature, "int2str"):  # a ClassLabel column holds indices; its names say more
        labels = [feature.int2str(label) for label in labels]
    return LabelledTexts(texts, labels)
