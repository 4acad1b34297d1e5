"""Recovered ratios: where between its parents a decoded sentence lies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import errors


def recovered_lam(decoded: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The ratio of the mix that a decoded sentence is closest to in direction.

    `argmin_lam || decoded - mix(lam) ||` over mixes in [0, 1] scaled to the decoded embedding's
    length: encoders return unit vectors, and the position of a sentence between its parents must
    not depend on how much of both it has lost. In closed form, `a / (a + b)` for the least-squares
    fit `a * first + b * second`.

    Args:
        decoded: Embeddings (N, D) of decoded sentences.
        first: Embeddings (N, D) of the first parents.
        second: Embeddings (N, D) of the second parents.

    Returns:
        (N,), 1 at the first parent and 0 at the second.
    """
    # The normal equations of the two-column fit, up to the determinant that a ratio does not need.
    aa, bb, ab = ((x * y).sum(-1) for x, y in ((first, first), (second, second), (first, second)))
    da, db = (decoded * first).sum(-1), (decoded * second).sum(-1)
    of_first = (da * bb - db * ab).clamp_min(0)
    of_second = (db * aa - da * ab).clamp_min(0)
    total = of_first + of_second
    return torch.where(total > 0, of_first / total.clamp_min(1e-12), torch.full_like(total, 0.5))


def recovered_lam_linear(decoded: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The literal `argmin_lam || decoded - (lam * first + (1 - lam) * second) ||`, not clipped.

    It shrinks towards 1/2 with any meaning lost in the round trip, even where as much is lost of
    both parents.
    """
    direction = first - second
    return ((decoded - second) * direction).sum(-1) / direction.square().sum(-1)


def lam_recovery(asked: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """How well the recovered ratio (N,) follows the asked one (N,): slope, R^2, Spearman's rho."""
    linregress, spearmanr = (
        getattr(errors.optional("scipy.stats", "stats", "Ratio recovery"), name)
        for name in ("linregress", "spearmanr")
    )

    if np.ptp(found) == 0:  # a decoder that always generates the same: no relation, not an error
        return {"slope": 0.0, "r2": 0.0, "spearman": 0.0}
    line = linregress(asked, found)
    rank = spearmanr(asked, found)
    return {
        "slope": float(line.slope),
        "r2": float(line.rvalue**2),
        "spearman": float(rank.statistic),
    }


def cross_topic_pairs(embeddings: Tensor, count: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs (count, 2) of unrelated rows: each the least similar of four random pairs.

    A bound on the cosine would mean something else for every encoder.
    """
    vectors = F.normalize(embeddings, dim=-1).numpy()
    pairs = np.stack([rng.choice(len(vectors), size=2, replace=False) for _ in range(4 * count)])
    alike = (vectors[pairs[:, 0]] * vectors[pairs[:, 1]]).sum(-1).reshape(count, 4)
    chosen: np.ndarray = pairs.reshape(count, 4, 2)[np.arange(count), alike.argmin(1)]
    return chosen
