"""Columns of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf import errors
from mixup_hf.data.text_pairs import join_sides

if TYPE_CHECKING:
    from datasets import Dataset


def texts_of(
    source: str, table: Dataset, text_column: str, text_pair_column: str | None
) -> list[str]:
    """The texts of a table, pairs joined; `source` is what messages call it."""
    require_column(source, table, "text_column", text_column)
    texts = list(table[text_column])
    errors.texts(f"{source}:{text_column}", texts)
    if text_pair_column is None:
        return texts
    require_column(source, table, "text_pair_column", text_pair_column)
    pairs = list(zip(texts, table[text_pair_column], strict=True))
    return join_sides(f"{source}:{text_pair_column}", pairs)


def require_column(source: str, table: Dataset, key: str, column: str) -> None:
    """Raise `InvalidInput` unless a table has the column that the argument `key` names."""
    if column not in table.column_names:
        raise errors.bad(key, f"be a column of {source} ({', '.join(table.column_names)})", column)
