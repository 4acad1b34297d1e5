"""How much of a sentence survives the round trip, and whether the ratio does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import _checks
from mixup_hf.distributed import counter_rng
from mixup_hf.mixing import linear

_LAMS = (0.0, 0.25, 0.5, 0.75, 1.0)


class RoundTrip(Protocol):
    """What is measured: something that encodes and inverts."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts."""
        ...

    def invert(self, embeddings: Tensor, *, temperature: float) -> list[str]:
        """Decode embeddings."""
        ...


def measure_fidelity(
    inverter: RoundTrip, sentences: Sequence[str], *, num_pairs: int = 60, seed: int = 0
) -> dict[str, float]:
    """Invert sentences and mixes of them, greedily, once each.

    Args:
        inverter: An `Inverter`.
        sentences: Texts it was not trained on (N).
        num_pairs: Random pairs for the lambda-recovery, each decoded at five ratios.
        seed: Which pairs.

    Returns:
        `cosine`, `token_f1`, `bleu` (0 to 100) of the round trip; `mix_cosine`, the mean cosine of
        a decoded mix to its target at lambda 0.25 to 0.75; and of the recovered against the asked
        lambda `lam_slope`, `lam_r2`, `lam_spearman`.
    """
    _checks.texts("sentences", sentences)
    _checks.at_least("sentences", len(sentences), 2)
    embeddings = inverter.encode(sentences)
    decoded = inverter.invert(embeddings, temperature=0.0)
    result = {
        "sentences": float(len(sentences)),
        "cosine": mean_cosine(inverter.encode(decoded), embeddings),
        "token_f1": mean_token_f1(decoded, sentences),
        "bleu": bleu(decoded, sentences),
    }
    rng = counter_rng(seed)
    pairs = np.stack([rng.choice(len(sentences), size=2, replace=False) for _ in range(num_pairs)])
    lams = torch.tensor(_LAMS).repeat(num_pairs)
    rows = torch.from_numpy(pairs).repeat_interleave(len(_LAMS), dim=0)
    first, second = embeddings[rows[:, 0]], embeddings[rows[:, 1]]
    targets = linear(first, second, lams)
    mixed = inverter.encode(inverter.invert(targets, temperature=0.0))
    middle = (lams > 0) & (lams < 1)
    result["mix_cosine"] = mean_cosine(mixed[middle], targets[middle])
    return result | lam_recovery(lams, recovered_lam(mixed, first, second))


def bleu(candidates: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU (sacrebleu), 0 to 100."""
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(candidates), [list(references)]).score)


def lam_recovery(asked: Tensor, found: Tensor) -> dict[str, float]:
    """How well the recovered ratio (N,) follows the asked one (N,): slope, R^2, Spearman's rho."""
    from scipy.stats import linregress, spearmanr

    line = linregress(asked.numpy(), found.numpy())
    rank = spearmanr(asked.numpy(), found.numpy())
    return {
        "lam_slope": float(line.slope),
        "lam_r2": float(line.rvalue**2),
        "lam_spearman": float(rank.statistic),
    }


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
        first: Embeddings (N, D) of the first parents.
        second: Embeddings (N, D) of the second parents.

    Returns:
        (N,), 1 at the first parent and 0 at the second.
    """
    direction = first - second
    return ((decoded - second) * direction).sum(-1) / direction.square().sum(-1)
