"""Writes the files that `row_formats` documents, chunk by chunk: memory does not grow with rows."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from mixup_hf import errors
from mixup_hf.data.row_formats import AS_TEXT, BY_NAME, COLUMNS, CONTENT, format_of, run_file
from mixup_hf.data.rows import SCHEMA

if TYPE_CHECKING:
    from datasets import Dataset

_LISTS = {
    column: pa.list_(pa.struct({name: pa.string(), "shares": pa.list_(pa.float64())}))
    for column, name in BY_NAME.items()
}


def select(
    record: Mapping[str, Any], columns: Sequence[str] = (), provenance: str = "full"
) -> dict[str, Any]:
    """The columns of a row that are wanted.

    Args:
        record: A row of `mixed_json`.
        columns: Names of columns, in the order wanted; empty for all.
        provenance: `full`; or `none`: only text and labels.

    Raises:
        InvalidInput: A column does not exist.
    """
    errors.one_of("provenance", provenance, ("full", "none"))
    for name in columns:
        errors.one_of("columns", name, COLUMNS)
    kept = {k: v for k, v in record.items() if provenance == "full" or k in CONTENT}
    return {name: kept[name] for name in columns if name in kept} if columns else kept


class RowWriter:
    """Writes rows to a file that appears under its name once it is complete.

    Until then they are in `NAME.partial.SUFFIX`. If an exception interrupts the writing, what has
    been written stays there; a file without rows is removed.

    Example:
        with RowWriter(Path("rows.csv")) as writer:
            writer.write([mixed_json(row, None, names) for row in rows])

    Args:
        path: The file; replaced if it exists.
        format: `jsonl`, `csv` or `parquet`; default: by the suffix.
        run: Settings that all rows share, for `FILE.run.json`; None writes no such file and removes
            that of an earlier file.

    Attributes:
        count: How many rows have been written.
        partial: Where they are until the file is complete.

    Raises:
        InvalidInput: Unknown format, or `path` is a folder or cannot be written.
        MissingFile: The folder does not exist.
    """

    def __init__(
        self, path: str | Path, format: str | None = None, *, run: Mapping[str, Any] | None = None
    ) -> None:
        self.path = Path(path)
        self.format = format_of(self.path, format)
        # A link stays one, with the settings beside it.
        self._target = self.path.resolve() if self.path.is_symlink() else self.path
        self.run = run
        self.partial = partial_of(self._target)
        self.count = 0
        check_output(self._target)
        self._write: Callable[[Sequence[Mapping[str, Any]]], object] | None = None
        self._close: Callable[[], object] = lambda: None

    def __enter__(self) -> RowWriter:
        self._stream: IO[Any] = (
            self.partial.open("wb")
            if self.format == "parquet"
            else self.partial.open("w", encoding="utf-8", newline="")
        )
        return self

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append rows, each with the columns of the first one."""
        if not records:
            return
        if self._write is None:
            self._write = {"jsonl": self._jsonl, "csv": self._csv, "parquet": self._parquet}[
                self.format
            ](records[0])
        self._write(records)
        self.count += len(records)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._close()
            self._stream.flush()
            os.fsync(self._stream.fileno())
        finally:
            self._stream.close()
            if kind is not None and self.count == 0:
                self.partial.unlink(missing_ok=True)
        if kind is None:
            self._publish()

    def _publish(self) -> None:
        beside = run_file(self.path)
        # Removed first, written last: old settings never describe new rows.
        for settings in {beside, run_file(self._target)}:
            settings.unlink(missing_ok=True)
        os.replace(self.partial, self._target)
        if self.run is not None:
            partial = beside.with_name(f"{beside.name}.partial")
            partial.write_text(json.dumps(self.run, indent=2) + "\n", encoding="utf-8")
            os.replace(partial, beside)

    def _jsonl(self, first: Mapping[str, Any]) -> Callable[[Sequence[Mapping[str, Any]]], object]:
        return lambda records: self._stream.writelines(json_line(each) for each in records)

    def _csv(self, first: Mapping[str, Any]) -> Callable[[Sequence[Mapping[str, Any]]], object]:
        writer = csv.DictWriter(self._stream, list(first))
        writer.writeheader()
        return lambda records: writer.writerows(_as_cells(each) for each in records)

    def _parquet(self, first: Mapping[str, Any]) -> Callable[[Sequence[Mapping[str, Any]]], object]:
        from pyarrow import parquet

        schema = _arrow_schema(first)
        writer = parquet.ParquetWriter(self._stream, schema)
        self._close = writer.close
        return lambda records: writer.write_table(_arrow_table(records, schema))


def partial_of(path: Path) -> Path:
    """Where rows are until their file is complete: `NAME.partial.SUFFIX`."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def write_rows(
    path: str | Path, records: Sequence[Mapping[str, Any]], run: Mapping[str, Any] | None = None
) -> None:
    """Write rows to a file at once; see `RowWriter`."""
    with RowWriter(path, run=run) as writer:
        writer.write(records)


def rows_dataset(records: Sequence[Mapping[str, Any]], label: Any = None) -> Dataset:
    """Rows as a `datasets.Dataset`.

    Args:
        records: Rows of `mixed_json`.
        label: The feature of the label column, for example a `ClassLabel`.
    """
    from datasets import Dataset, Features

    if not records:
        raise errors.bad("rows", "hold at least one generated row", records)
    schema = _arrow_schema(records[0])
    features = Features.from_arrow_schema(schema)
    columns = {
        name: [_as_arrow(name, record.get(name)) for record in records] for name in schema.names
    }
    if label is not None and "label" in features:
        features["label"] = label
    return Dataset.from_dict(columns, features=features)


def check_output(path: Path) -> None:
    """Raise if a file cannot be written there, before anything costly starts."""
    if path.is_dir():
        raise errors.bad("output", "be a file, not a folder", str(path))
    if not path.parent.is_dir():
        raise errors.MissingFile(
            f"`output`: there is no folder {str(path.parent)!r}. Create it first."
        )
    if not os.access(path.parent, os.W_OK) or path.parent.resolve().is_relative_to("/proc"):
        raise errors.bad("output", "be in a folder that can be written to", str(path))


def json_line(record: Mapping[str, Any]) -> str:
    """A row as a line of JSON."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def _as_cells(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, str) and name in AS_TEXT else json.dumps(value)
        for name, value in record.items()
    }


def _arrow_schema(first: Mapping[str, Any]) -> pa.Schema:
    known = {name: SCHEMA.field(name).type for name in SCHEMA.names} | _LISTS
    shares = first.get("soft_label", {})
    known["soft_label"] = pa.struct({name: pa.float64() for name in shares})
    types = {}
    for name, value in first.items():
        if name != "label" and name in known:
            types[name] = known[name]
        else:  # depends on the task
            types[name] = pa.list_(pa.string()) if value == [] else pa.array([value]).type
    return pa.schema(types)


def _arrow_table(records: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    rows = [{name: _as_arrow(name, value) for name, value in each.items()} for each in records]
    return pa.Table.from_pylist(rows, schema=schema)


def _as_arrow(name: str, value: Any) -> Any:
    if name not in BY_NAME:
        return value
    key = BY_NAME[name]
    return [{key: each, "shares": list(shares)} for each, shares in (value or {}).items()]
