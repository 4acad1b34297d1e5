"""From texts to features: one hook for generated rows, the same as for real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from mixup_hf import errors
from mixup_hf.data.text_pairs import split_sides

# preprocess(texts, text_pairs=None): a list of feature dicts, or a mapping of columns such as the
# BatchEncoding of a tokenizer. `text_pairs` is only passed for data of two text columns.
Preprocess = Callable[..., Any]


class TokenizerPreprocess:
    """The default hook: tokenize, and truncate at `max_length`.

    Args:
        tokenizer: The classifier's tokenizer.
        max_length: In tokens. Default: the length at which the training rows turn out to be
            truncated, else the tokenizer's own maximum.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> Any:
        """Tokenize N texts, or N pairs of texts."""
        sides = [list(texts)] if text_pairs is None else [list(texts), list(text_pairs)]
        return self.tokenizer(*sides, truncation=True, max_length=self.max_length)


def features_of(preprocess: Preprocess, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Apply the hook to N texts, or to N pairs as `join_sides` joins them.

    Returns:
        One feature dict per text.

    Raises:
        InvalidType: The hook returned neither a list of dicts nor a mapping of columns.
        InvalidInput: It returned another number of rows than it was given.
    """
    if not texts:
        return []
    columns = [list(side) for side in zip(*map(split_sides, texts), strict=True)]
    made = preprocess(*columns)
    if isinstance(made, Mapping):
        lengths = {len(values) for values in made.values()}
        count = lengths.pop() if len(lengths) == 1 else -1
        rows = [{name: values[at] for name, values in made.items()} for at in range(count)]
    elif isinstance(made, Sequence) and all(isinstance(row, Mapping) for row in made):
        rows = [dict(row) for row in made]
    else:
        raise errors.InvalidType(
            "`preprocess` must return a list of feature dicts or a mapping of columns (what a "
            f"tokenizer returns), but got {type(made).__name__}."
        )
    if len(rows) != len(texts):
        raise errors.InvalidInput(
            f"`preprocess` must return one row for each text, but got {len(rows)} rows for "
            f"{len(texts)} texts. It must not split, pack or drop rows."
        )
    return rows
