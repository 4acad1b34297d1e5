"""Texts of two sides (premise and hypothesis, question and answer), mixed side by side.

A pair travels as one string, its sides joined by a mark that no text holds, and its embedding is
that of both sides in a row: a mix of two such vectors mixes both sides by the same weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.types import PAIR_MARK, Encodes

MARK = PAIR_MARK
_LENGTH = 2**-0.5  # of a side: two unit vectors in a row are one again


def split_sides(text: str) -> tuple[str, ...]:
    """The sides of a text: itself alone, or both of a pair."""
    return tuple(text.split(MARK))


def without_blanks(text: str) -> str:
    """The text, with a full stop for every blank side: models need a token to read.

    A decoder may return nothing.
    """
    return MARK.join(side if side.strip() else "." for side in split_sides(text))


def are_pairs(texts: Sequence[str]) -> bool:
    """Whether these texts, as `join_sides` made them, have two sides."""
    return bool(texts) and MARK in texts[0]


def join_sides(name: str, texts: Sequence[object]) -> list[str]:
    """Texts as the library holds them: strings stay, pairs of strings become one string.

    Args:
        name: What the user calls them.
        texts: Strings, or pairs of strings; joined pairs are taken as well.

    Raises:
        TypeError: An element is neither.
        ValueError: Both kinds stand side by side, a side is empty, or not two sides.
    """
    if isinstance(texts, str):
        raise errors.InvalidType(
            f"`{name}` must be a list of strings, but got one string: [{texts!r}]?"
        )
    joined = [
        text if isinstance(text, str) else _join(name, row, text) for row, text in enumerate(texts)
    ]
    sides = {len(split_sides(text)) for text in joined}
    if sides - {1, 2}:
        raise errors.bad(name, "hold texts or pairs of texts", f"{max(sides)} sides")
    if len(sides) == 2:
        raise errors.bad(name, "hold texts, or pairs of texts, but not both", sorted(sides))
    if sides == {2}:
        for side in zip(*map(split_sides, joined), strict=True):
            errors.texts(name, side)
    return joined


def _join(name: str, row: int, pair: object) -> str:
    if (
        not isinstance(pair, Sequence)
        or len(pair) != 2
        or not all(isinstance(side, str) and MARK not in side for side in pair)
    ):
        raise errors.InvalidType(
            f"`{name}[{row}]` must be a string, or a pair of strings, but got "
            f"{type(pair).__name__}: {pair!r}."
        )
    return MARK.join(pair)


class PairEncoder:
    """Embeds pairs as both sides in a row: (N, 2 D).

    Args:
        encoder: Embeds one side.
    """

    def __init__(self, encoder: Encodes) -> None:
        self.encoder = encoder

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed N joined pairs: (N, 2 D), float32."""
        columns = zip(*(split_sides(text) for text in texts), strict=True)
        sides = [self.encoder.encode(column) for column in columns]
        return torch.cat(sides, dim=1) * _LENGTH


def both_sides(invert: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """An inverter of pairs' embeddings (n, 2 D) from one of texts' embeddings (n, D).

    Wanted lengths are (n, 2) for pairs, and (n, 1) for texts.
    """

    def decode(mixes: Tensor, seed: Sequence[int], lengths: np.ndarray | None = None) -> list[str]:
        first, second = (
            invert(
                side / _LENGTH,
                (*seed, number),
                *(() if lengths is None else (lengths[:, number : number + 1],)),
            )
            for number, side in enumerate(mixes.chunk(2, dim=1))
        )
        return [MARK.join(pair) for pair in zip(first, second, strict=True)]

    return decode
