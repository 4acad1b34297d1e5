"""A flat map of real and generated rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.runtime import counter_rng

_SAMPLE = 18  # identifies this random stream


@dataclass(frozen=True)
class Projection:
    """Where rows lie on a map.

    Attributes:
        real: Coordinates of the real rows (n, 2), in [0, 1].
        made: Coordinates of the generated rows (m, 2), on the same map, in [0, 1].
        kept_variance: Share of the real rows' variance that the map shows.
    """

    real: np.ndarray
    made: np.ndarray
    kept_variance: float


def project(real: Tensor, made: Tensor) -> Projection:
    """Project embeddings to two dimensions: the first two principal components of the real rows.

    A linear map, so that a mix of two rows lies on the line between them, and what decoding has
    changed shows as the distance from it.

    Args:
        real: Embeddings of real rows (n, D).
        made: Embeddings of generated rows (m, D); m may be 0.

    Raises:
        InvalidInput: Fewer than three real rows.
    """
    errors.at_least("number of real rows", len(real), 3, "Give a larger data set.")
    center = real.double().mean(0)
    centered = real.double() - center
    _, sizes, axes = torch.linalg.svd(centered, full_matrices=False)
    # An axis has no direction of its own: its largest part points to the right, or up.
    axes = axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(1, keepdim=True)).sign()
    total = float(sizes.square().sum())
    points = torch.cat([centered, made.double() - center]) @ axes.T
    low, high = points.amin(0), points.amax(0)
    scaled = ((points - low) / (high - low).clamp_min(1e-9)).numpy()
    kept = float(sizes[:2].square().sum()) / total if total > 0 else 1.0
    return Projection(scaled[: len(real)], scaled[len(real) :], kept)


def draw_rows(count: int, limit: int, always: Sequence[int], seed: int) -> list[int]:
    """Numbers of at most `limit` of `count` rows, ascending, drawn with a seed.

    Args:
        count: How many rows there are.
        limit: How many a map shows; more if `always` names more.
        always: Rows that must be there, such as the parents of generated ones.
        seed: Seed of the draw.
    """
    kept = set(always)
    others = [row for row in range(count) if row not in kept]
    free = max(0, limit - len(kept))
    if len(others) > free:
        others = counter_rng(seed, _SAMPLE).choice(others, size=free, replace=False).tolist()
    return sorted(kept | set(others))
