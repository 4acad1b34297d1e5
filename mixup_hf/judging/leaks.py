"""The leak guard: no generated row may be a near-duplicate of an evaluation text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mixup_hf import errors

_WORD = re.compile(r"\w+")
_SHINGLE = 4  # characters
_PERMUTATIONS = 128


class LeakError(errors.InvalidInput):
    """A row is a near-duplicate of an evaluation text."""


class LeakGuard:
    """Finds near-duplicates of evaluation texts.

    Texts are compared as sets of four-character shingles of their lower-case words: MinHash
    (datasketch) proposes candidates, the exact Jaccard similarity decides. A text without words
    (emoji, punctuation) is compared as it stands.

    Args:
        texts: The texts the model is evaluated on.
        threshold: Smallest Jaccard similarity of a near-duplicate, in (0, 1].
    """

    def __init__(self, texts: Sequence[str], threshold: float = 0.8) -> None:
        from datasketch import MinHashLSH

        errors.positive("leak_threshold", threshold)
        errors.in_range("leak_threshold", threshold, 0.0, 1.0)
        self.threshold = threshold
        self.texts: list[str] = list(dict.fromkeys(texts))
        self._shingles = [_shingles(text) for text in self.texts]
        # A lower threshold for candidates: MinHash misses some pairs right at its own threshold.
        self._index: Any = MinHashLSH(threshold=0.8 * threshold, num_perm=_PERMUTATIONS)
        for row, shingles in enumerate(self._shingles):
            self._index.insert(row, _sketch(shingles))

    def near(self, text: str) -> str | None:
        """The evaluation text that `text` nearly duplicates, or None."""
        if not text.strip():
            return None
        shingles = _shingles(text)
        for row in sorted(self._index.query(_sketch(shingles))):
            other = self._shingles[row]
            if len(shingles & other) >= self.threshold * len(shingles | other):
                return self.texts[int(row)]
        return None


def shared_texts(texts: Sequence[str], eval_texts: Sequence[str]) -> list[int]:
    """Rows of `texts` that are evaluation texts, ignoring case, spaces and punctuation."""
    known = {_plain(text) for text in eval_texts}
    return [row for row, text in enumerate(texts) if _plain(text) in known]


def first_rows(texts: Sequence[str]) -> list[int]:
    """For each row, the first that has its text, ignoring case, spaces and punctuation."""
    first: dict[str, int] = {}
    return [first.setdefault(_plain(text), row) for row, text in enumerate(texts)]


def repeated_texts(texts: Sequence[str]) -> list[int]:
    """Rows of `texts` that repeat an earlier one, ignoring case, spaces and punctuation."""
    return [row for row, first in enumerate(first_rows(texts)) if first != row]


def _plain(text: str) -> str:
    return " ".join(_WORD.findall(text.lower())) or text.strip()


def _shingles(text: str) -> frozenset[str]:
    plain = _plain(text)
    return frozenset(plain[at : at + _SHINGLE] for at in range(max(1, len(plain) - _SHINGLE + 1)))


def _sketch(shingles: frozenset[str]) -> Any:
    from datasketch import MinHash

    sketch = MinHash(num_perm=_PERMUTATIONS, seed=1)
    sketch.update_batch([shingle.encode() for shingle in shingles])
    return sketch
