"""Mixing pairs: embeddings and labels."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

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


def soft_labels(first: Tensor, second: Tensor, lams: Tensor, num_labels: int) -> Tensor:
    """Mix one-hot labels of class indices `first` and `second` (B,) to (B, C), float32."""
    return linear(F.one_hot(first, num_labels).float(), F.one_hot(second, num_labels).float(), lams)


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
