"""Mixing pairs: embeddings and labels."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import _checks


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
    """`linear`, brought to the length that lies between the parents' lengths in the same ratio.

    A linear mix of unit vectors is shorter than one: half way between unrelated ones, 0.71.

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
    """Spherical interpolation: equal steps of lam are equal angles; lengths change linearly.

    Args:
        first: (B, D).
        second: (B, D).
        lams: Weights of `first` (B,); outside [0, 1] it goes on along the same circle.

    Returns:
        (B, D). Rows whose parents point the same way, or exactly opposite ways, where there is no
        one circle through them, are those of `linear_renorm`.
    """
    ends = [F.normalize(vector.double(), dim=-1) for vector in (first, second)]
    angle = (ends[0] * ends[1]).sum(-1, keepdim=True).clamp(-1, 1).acos()
    weight = lams.double()[:, None]
    sine = angle.sin()
    arc = ((weight * angle).sin() * ends[0] + ((1 - weight) * angle).sin() * ends[1]) / sine
    mix = arc.to(first.dtype) * _length(first, second, lams)
    return torch.where(sine > 1e-4, mix, linear_renorm(first, second, lams))


def _length(first: Tensor, second: Tensor, lams: Tensor) -> Tensor:
    """The length between the parents' in the ratio of `lams` (B, 1)."""
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
        shares: Their weights (B, m); each line sums to 1.
        interpolation: A name of `INTERPOLATIONS`; `slerp` is defined for two parents only.

    Returns:
        (B, D).

    Raises:
        ValueError: An unknown name, or `slerp` of more than two parents.
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


def check_interpolation(interpolation: str, num_parents: int) -> None:
    """Raise `ValueError` unless `num_parents` can be mixed so."""
    _checks.one_of("interpolation", interpolation, tuple(INTERPOLATIONS))
    if interpolation == "slerp" and num_parents > 2:
        raise ValueError(
            f"`interpolation` = 'slerp' mixes two parents, but `weights` draws {num_parents}: no "
            "one circle goes through them. Take 'linear' or 'linear_renorm'."
        )


def mix_targets(targets: Tensor, shares: Tensor, *, bounded: bool = True) -> Tensor:
    """Mix the targets of m parents each.

    Args:
        targets: One-hot or multi-hot labels, or real numbers (B, m, C), float32.
        shares: The parents' weights (B, m).
        bounded: Labels: a weight of two parents outside [0, 1] counts as the nearest of the two,
            for there is no less than none of a class. False: real targets, which go on beyond the
            parents in a straight line.

    Returns:
        (B, C), float32.
    """
    weights = shares.to(targets.dtype)
    if bounded:
        weights = weights.clamp(0, 1)  # of two parents, one is cut to 0 and the other one to 1
    return (weights[..., None] * targets).sum(1)


def soft_labels(first: Tensor, second: Tensor, lams: Tensor, num_labels: int) -> Tensor:
    """Mix one-hot labels of class indices `first` and `second` (B,) to (B, C), float32.

    A weight outside [0, 1] counts as the nearest of the two, as in `mix_targets`.
    """
    targets = F.one_hot(torch.stack([first, second], dim=1), num_labels).float()
    return mix_targets(targets, torch.stack([lams, 1 - lams], dim=1))


def class_indices(
    labels: Sequence[Any], num_labels: int | None, label_names: Sequence[str] | None
) -> tuple[list[int], list[str]]:
    """Read the labels of a training set as class indices.

    Args:
        labels: Class indices, or class names.
        num_labels: C; taken from the labels when None.
        label_names: The classes' names in the order of the model's outputs. Needed with names
            whenever that order is not the sorted one.

    Returns:
        Indices (N,), and the C names.

    Raises:
        ValueError: Fewer than two classes, fewer rows than classes, or a label outside the range
            or the names.
        TypeError: A label is neither an integer nor a string.
    """
    names = _class_names(labels, num_labels, label_names)
    indices = label_indices(labels, names)
    _require_two_classes(indices, names)
    return indices, names


def label_indices(labels: Sequence[Any], names: Sequence[str]) -> list[int]:
    """Indices (N,) of labels, given as indices or as names, among the classes `names`.

    Raises:
        ValueError: A label outside the range or the names.
        TypeError: A label is neither an integer nor a string.
    """
    if all(isinstance(label, str) for label in labels):
        return _named_indices(labels, list(names))
    indices = [_checked_index(row, label) for row, label in enumerate(labels)]
    outside = sorted({index for index in indices if not 0 <= index < len(names)})
    if outside:
        raise _checks.bad(
            "labels",
            f"lie in 0..{len(names) - 1} (num_labels = {len(names)})",
            outside,
            "Set `num_labels` to the number of classes, or map the labels first.",
        )
    return indices


def _class_names(
    labels: Sequence[Any], num_labels: int | None, label_names: Sequence[str] | None
) -> list[str]:
    if all(isinstance(label, str) for label in labels):
        names = sorted(set(labels)) if label_names is None else list(label_names)
        if num_labels is not None and len(names) != num_labels:
            raise _checks.bad(
                "num_labels",
                f"equal the number of classes ({len(names)}: {', '.join(names)})",
                num_labels,
                "Name all classes with `label_names` if some have no row.",
            )
    else:
        highest = max(_checked_index(row, label) for row, label in enumerate(labels))
        count = highest + 1 if num_labels is None else num_labels
        names = [str(index) for index in range(count)] if label_names is None else list(label_names)
        if len(names) != count:
            raise _checks.bad("label_names", f"hold {count} names", label_names)
    if len(set(names)) < len(names):
        raise _checks.bad("label_names", "name every class once", names)
    return names


def _named_indices(labels: Sequence[str], names: list[str]) -> list[int]:
    index = {name: position for position, name in enumerate(names)}
    unknown = sorted(set(labels) - set(index))
    if unknown:
        raise _checks.bad("labels", f"be among label_names {names}", unknown)
    return [index[label] for label in labels]


def _checked_index(row: int, label: Any) -> int:
    try:
        if isinstance(label, bool):
            raise TypeError
        return operator.index(label)
    except TypeError:
        raise TypeError(
            f"`labels[{row}]` must be a class index or, like all others, a class name, but got "
            f"{type(label).__name__}: {label!r}."
        ) from None


def _require_two_classes(indices: Sequence[int], names: Sequence[str]) -> None:
    present = sorted(set(indices))
    if len(present) < 2:
        only = names[present[0]] if present else "none"
        raise ValueError(
            f"`labels` must hold at least two classes, but only {only!r} occurs in "
            f"{len(indices)} rows. A classifier cannot be trained on that."
        )
    if len(indices) < len(names):
        raise ValueError(
            f"There are fewer rows ({len(indices)}) than classes ({len(names)}). Give at least one "
            "row for each class."
        )
