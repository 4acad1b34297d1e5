"""Mixing pairs: embeddings and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf.config import check_interpolation


def linear(first: Tensor, second: Tensor, lams: Tensor) -> Tensor:
    """`lam * first + (1 - lam) * second`, row by row (mixup, Zhang et al. 2018).

    Args:
        first: (B, D).
        second: (B, D).
        lams: Weights of `first` (B,).

    Returns:
        (B, D).
    """
    weight = lams.to(first.dtype)[:, None]
    return weight * first + (1 - weight) * second


def linear_renorm(first: Tensor, second: Tensor, lams: Tensor) -> Tensor:
    """`linear`, rescaled to the length interpolated between the parents' lengths.

    A linear mix of unit vectors is shorter than 1: 0.71 halfway between orthogonal ones.

    Args:
        first: (B, D).
        second: (B, D).
        lams: Weights of `first` (B,); outside [0, 1] the length is that of the nearer parent.

    Returns:
        (B, D).
    """
    mix = linear(first, second, lams)
    longer: Tensor = _length(first, second, lams) / mix.norm(dim=-1, keepdim=True).clamp_min(_TINY)
    return mix * longer


def slerp(first: Tensor, second: Tensor, lams: Tensor) -> Tensor:
    """Spherical interpolation: the angle is linear in lam, and so is the length.

    Args:
        first: (B, D).
        second: (B, D).
        lams: Weights of `first` (B,); outside [0, 1] the mix continues along the same circle.

    Returns:
        (B, D). Where the parents are parallel or exactly opposite, so that the circle is not
        unique, the rows are those of `linear_renorm`.
    """
    ends = [F.normalize(vector.double(), dim=-1) for vector in (first, second)]
    angle = (ends[0] * ends[1]).sum(-1, keepdim=True).clamp(-1, 1).acos()
    weight = lams.double()[:, None]
    sine = angle.sin()
    arc = ((weight * angle).sin() * ends[0] + ((1 - weight) * angle).sin() * ends[1]) / sine
    mix = arc.to(first.dtype) * _length(first, second, lams)
    return torch.where(sine > 1e-4, mix, linear_renorm(first, second, lams))


def _length(first: Tensor, second: Tensor, lams: Tensor) -> Tensor:
    """The parents' lengths, interpolated with `lams` (B, 1)."""
    lengths = (vector.norm(dim=-1, keepdim=True) for vector in (first, second))
    return linear(next(lengths), next(lengths), lams.clamp(0, 1))


Interpolation = Callable[[Tensor, Tensor, Tensor], Tensor]
INTERPOLATIONS: dict[str, Interpolation] = {
    "linear": linear,
    "linear_renorm": linear_renorm,
    "slerp": slerp,
}
_TINY = 1e-12


def mix(parents: Tensor, shares: Tensor, interpolation: str = "linear") -> Tensor:
    """Mix m parents each.

    Args:
        parents: (B, m, D).
        shares: Their weights (B, m); each row sums to 1.
        interpolation: A name of `INTERPOLATIONS`; `slerp` is defined for two parents only.

    Returns:
        (B, D).

    Raises:
        InvalidInput: Unknown name, or `slerp` of more than two parents.
    """
    check_interpolation(interpolation, parents.shape[1])
    if parents.shape[1] == 2:
        return INTERPOLATIONS[interpolation](parents[:, 0], parents[:, 1], shares[:, 0])
    weights = shares.to(parents.dtype)[..., None]
    mixes: Tensor = (weights * parents).sum(1)
    if interpolation == "linear":
        return mixes
    lengths: Tensor = (weights * parents.norm(dim=-1, keepdim=True)).sum(1)
    longer: Tensor = lengths / mixes.norm(dim=-1, keepdim=True).clamp_min(_TINY)
    return mixes * longer


def mix_targets(targets: Tensor, shares: Tensor, *, bounded: bool = True) -> Tensor:
    """Mix the targets of m parents each.

    Args:
        targets: One-hot or multi-hot labels, or real numbers (B, m, C), float32.
        shares: The parents' weights (B, m).
        bounded: True for labels: weights outside [0, 1] are clamped, because a class probability
            cannot be negative. False for real targets, which are extrapolated linearly.

    Returns:
        (B, C), float32.
    """
    weights = shares.to(targets.dtype)
    if bounded:
        weights = weights.clamp(0, 1)  # two parents: one weight becomes 0, the other 1
    return (weights[..., None] * targets).sum(1)


def along_curve(curve: Sequence[float], lams: Tensor) -> Tensor:
    """The weights (n,) of a curve over [0, 1] at `lams` (n,); beyond, it goes on with slope 1."""
    inside = lams.clamp(0, 1)
    weights = np.interp(inside.double().numpy(), np.linspace(0, 1, len(curve)), curve)
    return torch.from_numpy(weights).to(lams.dtype) + (lams - inside)
