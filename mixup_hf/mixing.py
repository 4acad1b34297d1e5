"""Mixing pairs: embeddings and labels."""

from __future__ import annotations

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
    """Read labels as class indices.

    Args:
        labels: Class indices, or class names.
        num_labels: C; taken from the labels when None.
        label_names: The classes' names in the order of the model's outputs. Needed with names
            whenever that order is not the sorted one.

    Returns:
        Indices (N,), and the C names.

    Raises:
        ValueError: Fewer than two classes, or a label outside the range or the names.
        TypeError: A label is neither an integer nor a string.
    """
    if all(isinstance(label, str) for label in labels):
        names = list(label_names) if label_names is not None else sorted(set(labels))
        indices = _named_indices(labels, names)
        count = num_labels if num_labels is not None else len(names)
        if len(names) != count:
            raise _checks.bad(
                "num_labels",
                f"equal the number of classes ({len(names)}: {', '.join(names)})",
                num_labels,
                "Name all classes with `label_names` if some have no row.",
            )
    else:
        indices = [_checked_index(row, label) for row, label in enumerate(labels)]
        count = num_labels if num_labels is not None else max(indices) + 1
        names = list(label_names) if label_names is not None else [str(i) for i in range(count)]
        if len(names) != count:
            raise _checks.bad("label_names", f"hold {count} names", label_names)
        outside = sorted({index for index in indices if not 0 <= index < count})
        if outside:
            raise _checks.bad(
                "labels",
                f"lie in 0..{count - 1} (num_labels = {count})",
                outside,
                "Set `num_labels` to the number of classes, or map the labels first.",
            )
    _require_two_classes(indices, names)
    return indices, names


def _named_indices(labels: Sequence[str], names: list[str]) -> list[int]:
    index = {name: position for position, name in enumerate(names)}
    unknown = sorted(set(labels) - set(index))
    if unknown:
        raise _checks.bad("labels", f"be among label_names {names}", unknown)
    return [index[label] for label in labels]


def _checked_index(row: int, label: Any) -> int:
    if isinstance(label, bool) or not hasattr(label, "__index__"):
        raise TypeError(
            f"`labels[{row}]` must be a class index or, like all others, a class name, but got "
            f"{type(label).__name__}: {label!r}."
        )
    return int(label)


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
