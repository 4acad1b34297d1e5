"""Generated rows in files that users read: jsonl, csv, parquet and `datasets.Dataset`.

One schema for all of them; a row has these columns, of which `columns` selects some:

- `text`, and `text_pair` for pairs of texts;
- `label`: the class with the largest share (name, or index if the training set has indices); a list
  of names for several labels per row, a number for regression;
- `soft_label`: the share of every class by name;
- provenance: `lam`, `parents` (rows of the training set), `shares`, `seed`, `epoch`, `index`,
  `aligner_fingerprint`, `method`, `weights`, `interpolation`, `hints`, `engine`, `events`,
  `judges`, `votes`, `mitigation`, `attempts`, `weight`, `unlabeled_parents`, as `MixedExample`
  documents them;
- `parent_texts`: the parents' texts, only on request, since they are training data.

Settings that all rows share are in `FILE.run.json`, beside the file. In csv, lists and mappings are
JSON text; in parquet and data sets `judges` is a list of (judge, shares), `votes` one of (member,
shares).
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mixup_hf import errors
from mixup_hf.data.rows import SCHEMA
from mixup_hf.types import MixedExample

if TYPE_CHECKING:
    from datasets import Dataset

OF_A_RUN = "mixed.jsonl"  # in the folder of a run that mixed
FORMATS = ("jsonl", "csv", "parquet")
FIELDS = [field.name for field in fields(MixedExample)]
CONTENT = ("text", "text_pair", "label", "soft_label")
COLUMNS = (*CONTENT, *(name for name in FIELDS if name not in CONTENT), "parent_texts")
_WORDS = {name for name in SCHEMA.names if SCHEMA.field(name).type == pa.string()}
# Columns that map names to shares, and what a name is called where they are lists.
BY_NAME = {"judges": "judge", "votes": "member"}
AS_TEXT = _WORDS | {"text_pair", "label"}  # csv columns that are not JSON


def format_of(path: Path, name: str | None = None) -> str:
    """The format called `name`; else that of the suffix of `path`, jsonl without one."""
    chosen = name or path.suffix.lower().lstrip(".") or "jsonl"
    errors.one_of(
        "format", chosen, FORMATS, "" if name else f"Rename {str(path)!r}, or give the format."
    )
    return chosen


def run_file(path: str | Path) -> Path:
    """Where the settings of a file of rows are: `FILE.run.json`."""
    return Path(path).with_name(f"{Path(path).name}.run.json")


def read_run(path: str | Path) -> dict[str, Any]:
    """The settings that the rows of a file share; empty if they were not recorded.

    Raises:
        InvalidInput: The settings file is damaged.
    """
    file = run_file(path)
    if not file.is_file():
        return {}
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise errors.InvalidInput(f"{file} is damaged ({error}).") from error
    return run if isinstance(run, dict) else {}


def require_rows(file: Path) -> None:
    """Raise `MissingFile` unless there is such a file; say where the rows of a run's folder are."""
    if file.is_file():
        return
    inside = file / OF_A_RUN
    way_out = f"Give {inside}" if inside.is_file() else "`mixup-hf augment` writes one"
    raise errors.MissingFile(f"There is no file of generated rows {str(file)!r}. {way_out}.")


def read_records(source: str | Path | Dataset) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a file or data set as written, with a description of where it is.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: A row cannot be read.
    """
    if not isinstance(source, (str, Path)):
        for number, content in enumerate(source, start=1):
            yield f"row {number} of the data set", _without_nulls(dict(content))
        return
    file = Path(source)
    require_rows(file)
    reader = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}[format_of(file)]
    yield from reader(file)


def _read_jsonl(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    # Split at "\n" only: a sentence may contain other characters that end a line for splitlines().
    with _decoded(file), file.open(encoding="utf-8", newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            place = f"{file}, line {number},"
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise errors.InvalidInput(
                    f"{place} is not JSON ({error}). If the file was cut off, delete that line."
                ) from error
            if not isinstance(content, dict):
                raise errors.InvalidInput(f"{place} is not a generated row, but {content!r:.200}.")
            yield place, content


def _read_csv(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with _decoded(file), file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        refuse_twice(file, reader.fieldnames or ())
        for number, line in enumerate(reader, start=1):
            place = f"{file}, row {number},"
            try:
                content = {
                    name: value if name in AS_TEXT or name not in COLUMNS else json.loads(value)
                    for name, value in line.items()
                    if value is not None
                }
            except (ValueError, TypeError, RecursionError) as error:
                raise errors.InvalidInput(
                    f"{place} is not a generated row ({error}). Lists and mappings are JSON text."
                ) from error
            yield place, content


@contextmanager
def _decoded(file: Path) -> Iterator[None]:
    """Turn what a reader raises between two rows into an error that names the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise errors.InvalidInput(
            f"{file} is not text in UTF-8 ({error}). Was it damaged, or saved in another encoding?"
        ) from error
    except csv.Error as error:
        raise errors.InvalidInput(f"{file} is not a csv file ({error}).") from error


def refuse_twice(source: object, columns: Sequence[str]) -> None:
    """Raise `InvalidInput` for a table in which two columns have one name."""
    twice = sorted(name for name, count in Counter(columns).items() if count > 1)
    if twice:
        raise errors.InvalidInput(
            f"{source} has more than one column called {twice[0]!r}. Rename or drop all but one."
        )


def _read_parquet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise errors.InvalidInput(f"{file} is not a parquet file ({error}).") from error
    refuse_twice(file, table.column_names)
    for number, content in enumerate(table.to_pylist(), start=1):
        yield f"{file}, row {number},", _without_nulls(content)


def _without_nulls(content: dict[str, Any]) -> dict[str, Any]:
    content = {name: value for name, value in content.items() if value is not None}
    for column, key in BY_NAME.items():
        if isinstance(content.get(column), list):
            content[column] = _by_name(column, content[column], key)
    return content


def _by_name(column: str, listed: list[Any], key: str) -> dict[str, Any]:
    try:
        return {each[key]: each["shares"] for each in listed}
    except (KeyError, TypeError) as error:
        rule = f"be a list of ({key}, shares)"
        raise errors.bad(column, rule, listed) from error
