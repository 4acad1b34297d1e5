"""Files of rows that their readers would misread, or refuse without a cause."""

from __future__ import annotations

import csv
from pathlib import Path

from mixup_hf import errors
from mixup_hf.data.row_formats import refuse_twice


def refuse_unreadable(file: Path) -> None:
    """Raise `InvalidInput` for a file without rows or not in UTF-8, or a csv file with odd rows."""
    if file.suffix == ".parquet":
        return
    _refuse_empty(file)
    _refuse_encoding(file)
    if file.suffix == ".csv":
        _refuse_ragged(file)


def refuse_without_splits(source: str | None) -> None:
    """Raise `InvalidInput` for a single table, whose rows would be those of every split."""
    path = Path(source or "")
    alone = (path / "dataset_info.json").is_file() and not (path / "dataset_dict.json").is_file()
    if path.is_file() or alone:
        raise errors.bad(
            "data.dataset",
            "have splits",
            source,
            "This is a single table, which would be training and test rows at once. Name files "
            "by `data.train_file` and `data.test_file`, or save a DatasetDict.",
        )


def _refuse_empty(file: Path) -> None:
    """Raise for a file without rows, whose readers fail with messages that hide the cause."""
    with file.open("rb") as stream:
        first = stream.readline().strip()
        more = stream.read(4096).strip()
    if not first and not more:
        raise errors.InvalidInput(f"{file} is empty. Is it the right file?")
    if file.suffix == ".csv" and not more:
        raise errors.InvalidInput(f"{file} has a header but no rows. Is it the right file?")


def _refuse_encoding(file: Path) -> None:
    """Raise for bytes that are not UTF-8: json files are read, and fail when a row is looked at."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise errors.InvalidInput(
                    f"{file}, line {number}, is not text in UTF-8 ({error}). Was it saved in "
                    "another encoding? Convert it: `iconv -f ISO-8859-1 -t UTF-8`, for example."
                ) from error


def _refuse_ragged(file: Path) -> None:
    """Raise for a csv file with rows longer than its header, whose reader would shift columns."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            refuse_twice(file, header)
            for row in reader:
                if len(row) > len(header):
                    raise errors.InvalidInput(
                        f"{file}, line {reader.line_num}, has {len(row)} fields, but the header "
                        f"{len(header)}. Quote texts with commas in them, and leave out commas at "
                        "the end of lines."
                    )
    except (csv.Error, UnicodeDecodeError):
        return  # the reader's own message names the cause
