"""Mixed rows in a file, as users read them: written, read again, and trained on without an LLM."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from mixup_hf import errors
from mixup_hf.data.text_pairs import are_pairs, join_sides, split_sides
from mixup_hf.types import MixedExample

_FIELDS = frozenset(field.name for field in fields(MixedExample))
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
        "engine": pa.string(),
        "events": pa.list_(pa.string()),
        "judges": pa.map_(pa.string(), _FLOATS),
        "mitigation": pa.string(),
        "attempts": pa.int64(),
        "weight": pa.float64(),
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
            return [reader.get_batch(at) for at in range(reader.num_record_batches)]
        except pa.ArrowInvalid as error:
            raise errors.InvalidInput(
                f"{file} is damaged ({error}). Delete it: its rows are generated again from the "
                "seed."
            ) from error


def _record_batch(rows: Sequence[MixedExample]) -> pa.RecordBatch:
    content = [row.to_json() | {"judges": list(row.judges.items())} for row in rows]
    return pa.RecordBatch.from_pylist(content, schema=SCHEMA)


def _from_arrow(content: dict[str, Any]) -> MixedExample:
    return MixedExample.from_json(content | {"judges": dict(content["judges"])})


class RecordedRows:
    """Hands out rows that were made before, refill by refill.

    A refill takes the rows after those of the refill before it, and begins again at the end.

    Args:
        texts: The training texts (N), the parents of the rows.
        rows: The rows (M).
    """

    def __init__(self, texts: Sequence[str], rows: Sequence[MixedExample]) -> None:
        if not rows:
            raise errors.bad("rows", "hold at least one mixed row", rows)
        self.texts = list(texts)
        self.rows = list(rows)

    def produce(
        self, epoch: int, num_rows: int, on_chunk: Callable[[int], object] | None = None
    ) -> list[MixedExample]:
        """The rows of a refill: `num_rows` of them, or all there are."""
        errors.at_least("num_rows", num_rows, 1)
        count = min(num_rows, len(self.rows))
        taken = [self.rows[(epoch * count + at) % len(self.rows)] for at in range(count)]
        if on_chunk is not None:
            on_chunk(count)
        return taken

    def forget(self) -> None:
        """Nothing is remembered of a model."""


def mixed_json(row: MixedExample, texts: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """A mixed row as users read it: class names, and the parents' texts."""
    label = {name: round(share, 6) for name, share in zip(names, row.label, strict=True)}
    parents = [texts[parent] for parent in row.parents]
    shown = row.to_json() | {"label": label, "parent_texts": parents}
    if are_pairs([row.text]):
        shown["text"], shown["text_pair"] = split_sides(row.text)
        shown["parent_texts"] = [split_sides(parent) for parent in parents]
    return shown


def read_mixed(path: str | Path, texts: Sequence[str], names: Sequence[str]) -> list[MixedExample]:
    """Read what `mixup-hf augment`, or a run that mixed, wrote for these training texts.

    Args:
        path: The JSON-lines file.
        texts: The training texts (N), as `sides.join_sides` makes them.
        names: The classes (C), in the order of the model's outputs.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is damaged, has other classes, or was made from other texts: rows of an
            evaluation set could be among their parents.
    """
    file = Path(path)
    if not file.is_file():
        raise errors.MissingFile(
            f"`rows_file`: there is no file {str(file)!r}. `mixup-hf augment` writes one."
        )
    rows = []
    for place, content in _lines(file):
        try:
            row = _read(content, names)
        except (KeyError, TypeError, ValueError) as error:
            raise errors.InvalidInput(f"{place} is no mixed row ({error!r}).") from error
        _check_parents(place, row, content["parent_texts"], texts)
        rows.append(row)
    if not rows:
        raise errors.InvalidInput(
            f"`rows_file`: {file} has no rows. Make it with `mixup-hf augment`."
        )
    return rows


def read_shown(path: str | Path) -> list[tuple[MixedExample, list[str], list[str]]]:
    """Each row of a file with its parents' texts and its classes, to be looked at.

    Raises:
        ValueError: A line is damaged.
    """
    shown = []
    for place, content in _lines(Path(path)):
        try:
            names = sorted(content["label"])
            row = _read(content, names)
            shown.append((row, join_sides("parent_texts", content["parent_texts"]), names))
        except (KeyError, TypeError, ValueError) as error:
            raise errors.InvalidInput(f"{place} is no mixed row ({error!r}).") from error
    return shown


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    # Not splitlines(): a sentence may hold characters that it takes for line ends.
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        place = f"{file}, line {number},"
        if not line:
            continue
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise errors.InvalidInput(
                f"{place} is no JSON ({error}). Was it cut? Delete it."
            ) from error
        if not isinstance(content, dict):
            raise errors.InvalidInput(f"{place} is no mixed row, but {content!r}.")
        yield place, content


def _read(content: dict[str, Any], names: Sequence[str]) -> MixedExample:
    label = content["label"]
    if sorted(label) != sorted(names):
        raise errors.InvalidInput(
            f"its classes are {sorted(label)}, those of the model {sorted(names)}"
        )
    sides = [content["text"], *([content["text_pair"]] if "text_pair" in content else [])]
    text = join_sides("text", sides[:1] if len(sides) == 1 else [sides])[0]
    kept = {name: value for name, value in content.items() if name in _FIELDS}
    return MixedExample.from_json(
        kept | {"text": text, "label": [float(label[name]) for name in names]}
    )


def _check_parents(
    place: str, row: MixedExample, parent_texts: Sequence[Any], texts: Sequence[str]
) -> None:
    shown = join_sides("parent_texts", parent_texts)
    here = [texts[at] if 0 <= at < len(texts) else None for at in row.parents]
    if shown != here:
        raise errors.InvalidInput(
            f"{place} was made from other texts: its parents {list(row.parents)} are {shown}, but "
            f"here those rows are {here}. Give the training texts that it was made from, in their "
            "order; or make the rows anew with `mixup-hf augment`."
        )
