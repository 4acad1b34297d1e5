"""Unlabelled texts from files."""

from __future__ import annotations

from pathlib import Path

from mixup_hf import errors
from mixup_hf.data.columns import texts_of
from mixup_hf.data.tables import open_table


def read_texts(
    source: str | Path, text_column: str = "text", text_pair_column: str | None = None
) -> list[str]:
    """Read texts without labels.

    Args:
        source: A .txt file with one text per line, or anything `read_table` reads.
        text_column: Column of the text; not used for .txt files.
        text_pair_column: Column of the second text, where rows are pairs.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: The source cannot be read, has no texts, or lacks the column; or pairs of
            texts are to be read from lines.
    """
    if Path(source).suffix == ".txt":
        return _lines(Path(source), text_pair_column)
    table, where = open_table(source)
    if not len(table):
        raise errors.InvalidInput(f"{where} has no rows. Is it the right file?")
    return texts_of(where, table, text_column, text_pair_column)


def _lines(file: Path, text_pair_column: str | None) -> list[str]:
    """The lines of a file that are not blank."""
    if text_pair_column is not None:
        raise errors.bad(
            "unlabeled_file",
            "be a table where rows are pairs of texts",
            str(file),
            f"Give a csv, jsonl or parquet file with the column {text_pair_column!r}.",
        )
    if not file.is_file():
        raise errors.MissingFile(f"There is no file {str(file)!r}.")
    try:
        content = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.InvalidInput(
            f"{file} is not text in UTF-8 ({error}). Convert it, or give a table."
        ) from error
    # At "\n" only: a text may contain other characters that end a line for splitlines().
    lines = [line.strip() for line in content.split("\n") if line.strip()]
    if not lines:
        raise errors.InvalidInput(f"{file} is empty. Is it the right file?")
    return lines
