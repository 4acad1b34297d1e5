"""Mixes with known text: two joined sentences, decoded from the mix of their embeddings.

A decoder trained on single sentences never sees a point between two topics, and decodes it to the
nearer parent. The embedding of two concatenated sentences lies between theirs (for MiniLM and two
unrelated sentences, at a cosine of 0.92 to the best mix of the two), so the joined text is a
label for that mix that does not have to be guessed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.evaluation.ratio_recovery import recovered_lam
from mixup_hf.inverter.batches import StackedRows
from mixup_hf.mixing.interpolation import linear
from mixup_hf.runtime import counter_rng

_SHORT_WORDS = 8  # limit for the second sentence, so the decoder can handle the joined text
_ENDINGS = (".", "!", "?", ":", ";", '"', "'", ")")


def joined_pairs(sentences: list[str], count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Return `count` texts of two sentences each, and the indices of their sentences (N, 2).

    One of the two is always short. The longer one comes first, and its share of the meaning varies
    across pairs.

    Raises:
        ValueError: Fewer than two of the sentences are short.
    """
    words = np.array([len(sentence.split()) for sentence in sentences])
    short = np.flatnonzero(words <= _SHORT_WORDS)
    if len(short) < 2:
        raise errors.InvalidInput(
            f"`joined_share` joins sentences of at most {_SHORT_WORDS} words to others, and the "
            f"data holds {len(short)} of them. Set `joined_share: 0`, or give more sentences."
        )
    rng = counter_rng(seed)
    second = short[rng.integers(len(short), size=count)]
    first = (second + rng.integers(1, len(sentences), size=count)) % len(sentences)  # never itself
    pairs = np.stack([first, second], axis=1)
    swap = words[pairs[:, 0]] < words[pairs[:, 1]]
    pairs[swap] = pairs[swap][:, ::-1]
    return [f"{_ended(sentences[i])} {sentences[j]}" for i, j in pairs], pairs


def joined_embeddings(joined: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the decoder inputs (N, D) for joined sentences; every other row is their embedding.

    The other half are mixes of the parents, at the ratio recovered from the joined text's
    embedding. This is the kind of input the decoder receives at inference time.

    Args:
        joined: Embeddings (N, D) of the joined texts.
        first: Embeddings (N, D) of their first sentences.
        second: Embeddings (N, D) of their second sentences.
    """
    mixes = linear(first, second, recovered_lam(joined, first, second))
    even = (torch.arange(len(joined)) % 2 == 0)[:, None]
    return torch.where(even, joined, mixes)


def with_joined(
    sentences: list[str],
    embeddings: np.ndarray,
    share: float,
    seed: int,
    embed: Callable[[list[str]], np.ndarray],
) -> tuple[list[str], StackedRows | np.ndarray]:
    """Add joined sentences and their embeddings, so that they make up `share` of the total.

    Args:
        sentences: N texts.
        embeddings: (N, D).
        share: Fraction of joined sentences, in [0, 1).
        seed: Determines which sentences are joined.
        embed: Function that embeds texts.
    """
    count = round(len(sentences) * share / (1 - share))
    if not count:
        return sentences, embeddings
    texts, pairs = joined_pairs(sentences, count, seed)
    first, second = (_float32(embeddings[parents]) for parents in pairs.T)
    rows = joined_embeddings(_float32(embed(texts)), first, second)
    return sentences + texts, StackedRows(embeddings, rows.numpy().astype(np.float16))


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith(_ENDINGS) else f"{sentence}."


def _float32(embeddings: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(embeddings, dtype=np.float32))
