"""How much of a sentence survives the round trip, and whether the ratio does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional as F


def token_f1(candidate: str, reference: str) -> float:
    """F1 of the two sentences' words as bags, lower-cased: 1 for the same words in any order."""
    left, right = candidate.lower().split(), reference.lower().split()
    shared = sum((Counter(left) & Counter(right)).values())
    return 2 * shared / (len(left) + len(right)) if left and right else 0.0


def mean_token_f1(candidates: Sequence[str], references: Sequence[str]) -> float:
    """Mean `token_f1` over pairs."""
    return float(np.mean([token_f1(*pair) for pair in zip(candidates, references, strict=True)]))


def mean_cosine(first: Tensor, second: Tensor) -> float:
    """Mean cosine between the rows of two (N, D) tensors."""
    return float(F.cosine_similarity(first, second, dim=-1).mean())


def recovered_lam(decoded: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The ratio that best explains where a decoded sentence landed.

    The closed form of `argmin_lam ||decoded - (lam * first + (1 - lam) * second)||`, not clipped.

    Args:
        decoded: Embeddings (N, D) of decoded sentences.
        first, second: Embeddings (N, D) of their parents.

    Returns:
        (N,), 1 at the first parent and 0 at the second.
    """
    direction = first - second
    return ((decoded - second) * direction).sum(-1) / direction.square().sum(-1)
