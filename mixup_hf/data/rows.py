"""Generated rows as the library stores them: memory-mapped Arrow, shared by processes and workers.

`row_formats` documents the files that users read and write.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from mixup_hf import errors
from mixup_hf.types import MixedExample

_FLOATS = pa.list_(pa.float64())
SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "label": _FLOATS,
        "lam": pa.float64(),
        "parents": pa.list_(pa.int64()),
        "shares": _FLOATS,
        "seed": pa.int64(),
        "epoch": pa.int64(),
        "index": pa.int64(),
        "aligner_fingerprint": pa.string(),
        "method": pa.string(),
        "weights": pa.string(),
        "interpolation": pa.string(),
        "hints": pa.string(),
        "engine": pa.string(),
        "events": pa.list_(pa.string()),
        "judges": pa.map_(pa.string(), _FLOATS),
        "votes": pa.map_(pa.string(), _FLOATS),
        "mitigation": pa.string(),
        "attempts": pa.int64(),
        "weight": pa.float64(),
        "unlabeled_parents": pa.list_(pa.int64()),
    }
)
_FILE = "rows.arrow"
_BATCH = 4096  # rows per record batch: what a random access has to look at


def save_rows(folder: str | Path, rows: Sequence[MixedExample]) -> Path:
    """Write rows to a folder for `open_rows`, atomically: they are all there, or none is.

    Args:
        folder: Created if it does not exist; rows saved there before are replaced.
        rows: At least one row.

    Returns:
        The folder.
    """
    if not rows:
        raise errors.bad("rows", "hold at least one generated row", rows)
    target = Path(folder) / _FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{_FILE}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            with pa.ipc.new_file(stream, SCHEMA) as writer:
                for start in range(0, len(rows), _BATCH):
                    writer.write_batch(_record_batch(rows[start : start + _BATCH]))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target.parent


def has_rows(folder: str | Path) -> bool:
    """Whether `save_rows` has completed in this folder."""
    return (Path(folder) / _FILE).is_file()


def open_rows(folder: str | Path) -> StoredRows:
    """Open what `save_rows` wrote: memory-mapped, so that rows are read as they are used.

    Raises:
        MissingFile: No rows have been saved there.
        InvalidInput: The file is damaged.
    """
    if not has_rows(folder):
        raise errors.MissingFile(f"{str(folder)!r} holds no saved rows (no file {_FILE}).")
    rows = StoredRows(Path(folder))
    len(rows)  # reads the footer: a damaged file is refused here, not in a data-loader worker
    return rows


class StoredRows(Sequence[MixedExample]):
    """Saved rows as a read-only sequence; pickles as the path, not the rows.

    Args:
        folder: Where `save_rows` wrote them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        batches = self._batches
        return _BATCH * (len(batches) - 1) + int(batches[-1].num_rows)

    @overload
    def __getitem__(self, place: int) -> MixedExample: ...

    @overload
    def __getitem__(self, place: slice) -> list[MixedExample]: ...

    def __getitem__(self, place: int | slice) -> MixedExample | list[MixedExample]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        at = range(len(self))[place]
        return _from_arrow(self._batches[at // _BATCH].slice(at % _BATCH, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[MixedExample]:
        for batch in self._batches:
            yield from map(_from_arrow, batch.to_pylist())

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        file = self.folder / _FILE
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(file)))
            batches = [reader.get_batch(at) for at in range(reader.num_record_batches)]
            for batch in batches:
                batch.validate(full=True)
            # Earlier versions had fewer columns.
            if not batches or not {*reader.schema} <= {*SCHEMA}:
                raise pa.ArrowInvalid("no rows, or other columns")
            return batches
        except (pa.ArrowException, OSError, MemoryError, OverflowError) as error:
            raise errors.InvalidInput(
                f"{file} is damaged ({error}). Delete it: its rows are generated again from the "
                "seed."
            ) from error


def _record_batch(rows: Sequence[MixedExample]) -> pa.RecordBatch:
    content = [
        row.to_json() | {"judges": list(row.judges.items()), "votes": list(row.votes.items())}
        for row in rows
    ]
    return pa.RecordBatch.from_pylist(content, schema=SCHEMA)


def _from_arrow(content: dict[str, Any]) -> MixedExample:
    by_name = {key: dict(content.get(key) or ()) for key in ("judges", "votes")}
    return MixedExample.from_json(content | by_name)
