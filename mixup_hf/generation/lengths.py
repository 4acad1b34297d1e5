"""Wanted lengths of generated texts: those of their parents, so that both sets are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from mixup_hf.data.text_pairs import split_sides
from mixup_hf.runtime import counter_rng

_CHOICE = 21  # what this stream of random numbers is for; part of its key


class ParentLengths:
    """Draws the length of each text from those of its parents, by their weights.

    A parent's own length, not the weighted mean: means vary less than the lengths themselves.

    Args:
        texts: The training texts (N); of pairs, each side has a length of its own.
        count_tokens: Lengths (N,) of texts in tokens of the LLM.
        longest: Most tokens that a generated text can have.
    """

    def __init__(
        self,
        texts: Sequence[str],
        count_tokens: Callable[[Sequence[str]], Sequence[int]],
        longest: int,
    ) -> None:
        self._texts, self._count_tokens, self._longest = texts, count_tokens, longest

    @cached_property
    def _lengths(self) -> np.ndarray:
        """Lengths (N, S) of the training texts' S sides."""
        columns = zip(*map(split_sides, self._texts), strict=True)
        lengths = np.array([self._count_tokens(column) for column in columns]).T
        return lengths.clip(1, self._longest)

    def draw(self, parents: np.ndarray, shares: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """Wanted lengths (n, S), in tokens.

        Args:
            parents: Rows of the parents (n, m).
            shares: Their weights (n, m); a negative one is as good as none.
            seed: Key of the random stream that decides between the parents.
        """
        upper = shares.clip(0).cumsum(axis=1)
        draws = counter_rng(*seed, _CHOICE).random(len(parents)) * upper[:, -1]
        chosen = (upper <= draws[:, None]).sum(axis=1)
        lengths: np.ndarray = self._lengths[parents[np.arange(len(parents)), chosen]]
        return lengths
