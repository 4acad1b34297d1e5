"""Labels of a training set as targets that can be mixed."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import errors
from mixup_hf.data.label_checks import (
    refuse_missing,
    require_rows,
    require_two_classes,
    warn_gaps,
    warn_near_duplicates,
)
from mixup_hf.data.multi_hot import multi_hot

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
PROBLEM_TYPES = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)  # as transformers' configs name them


@dataclass(frozen=True)
class Targets:
    """The labels of a training set.

    Attributes:
        problem_type: One of `PROBLEM_TYPES`.
        values: One-hot rows, multi-hot rows, or numbers (N, C), float32.
        groups: What pairing groups rows by (N,): class index, index of the set of labels, or the
            number itself.
        names: Names of the columns (C).
        by_name: Whether single labels were given by name, not by index.
    """

    problem_type: str
    values: Tensor
    groups: np.ndarray
    names: tuple[str, ...]
    by_name: bool = False


def read_targets(
    labels: Sequence[Any],
    num_labels: int | None,
    label_names: Sequence[str] | None,
    problem_type: str | None = None,
) -> Targets:
    """Read labels as targets.

    Class indices or class names are single-label classification. Lists are multi-label: of class
    names, or of one 0 or 1 per class. Floats are regression targets, unless all of them are whole
    numbers: those are refused, since pandas turns class indices into floats as soon as one is
    missing.

    Args:
        labels: One label per row.
        num_labels: Number of classes C. Default: as many as occur.
        label_names: Names of the classes in the order of the model's outputs.
        problem_type: One of `PROBLEM_TYPES`. Default: inferred from the labels.

    Raises:
        InvalidInput: Labels are missing, ambiguous or outside the classes, or of one class.
        InvalidType: A label is neither a number, nor a string, nor a list of them.
    """
    if problem_type is not None:
        errors.one_of("problem_type", problem_type, PROBLEM_TYPES)
    refuse_missing(labels)
    kind = problem_type or _inferred(labels)
    if kind == MULTI_LABEL:
        return _multi_label(labels, num_labels, label_names)
    if kind == REGRESSION:
        return _regression(labels, num_labels)
    indices, names = class_indices(labels := _whole(labels), num_labels, label_names)
    values = F.one_hot(torch.tensor(indices), len(names)).float()
    by_name = isinstance(labels[0], str)
    return Targets(SINGLE_LABEL, values, np.asarray(indices), tuple(names), by_name)


def like(targets: Targets, labels: Sequence[Any]) -> Tensor:
    """Labels of other rows, such as a test split, in the form of `targets.values` (n, C).

    Raises:
        InvalidInput: A label is missing or outside the classes of `targets`.
        InvalidType: A label is of another kind.
    """
    refuse_missing(labels)
    names = list(targets.names)
    if targets.problem_type == REGRESSION:
        return _regression(labels, 1).values
    if targets.problem_type == MULTI_LABEL:
        return _multi_label(labels, len(names), names).values
    labels = _whole(labels)
    if targets.by_name:  # "1" and "2" in a file without other names are read as numbers
        labels = [str(label) for label in labels]
    return F.one_hot(torch.tensor(label_indices(labels, names)), len(names)).float()


def _whole(labels: Sequence[Any]) -> Sequence[Any]:
    """Floats as integers, if all of them are whole numbers."""
    is_whole = all(_is_real(label) and float(label).is_integer() for label in labels)
    return [int(label) for label in labels] if is_whole else labels


def _inferred(labels: Sequence[Any]) -> str:
    if len(labels) and all(_is_list(label) for label in labels):
        return MULTI_LABEL
    if not len(labels) or not all(_is_real(label) for label in labels):
        return SINGLE_LABEL
    if all(float(label).is_integer() for label in labels):
        shown = ", ".join(str(value) for value in sorted({float(each) for each in labels})[:5])
        raise errors.InvalidInput(
            f"`labels` are floats, but all of them are whole numbers ({shown}, ...). If they are "
            "class indices (pandas turns integers into floats when one is missing), convert them "
            "with `.astype(int)`, or set `problem_type` to 'single_label_classification'. If they "
            "are numbers to predict, set `problem_type` to 'regression'."
        )
    return REGRESSION


def _is_list(label: Any) -> bool:
    return isinstance(label, (list, tuple, set, frozenset, np.ndarray, Tensor)) and (
        not isinstance(label, (np.ndarray, Tensor)) or label.ndim == 1
    )


def _is_number(label: Any) -> bool:
    return isinstance(label, (int, float, np.number)) and not isinstance(label, bool)


def _is_real(label: Any) -> bool:
    return isinstance(label, numbers.Real) and not isinstance(label, numbers.Integral)


def _multi_label(
    labels: Sequence[Any], num_labels: int | None, label_names: Sequence[str] | None
) -> Targets:
    if not all(_is_list(label) for label in labels):
        raise errors.InvalidInput(
            "`labels` must be lists for multi-label classification: of class names, or of one 0 or "
            "1 per class."
        )
    rows = [list(label) for label in labels]
    if all(isinstance(name, str) for row in rows for name in row):
        found = sorted({name for row in rows for name in row})
        names = list(label_names) if label_names is not None else found
        unknown = sorted(set(found) - set(names))
        if unknown:
            raise errors.bad("labels", f"be among label_names {names}", unknown)
        values = torch.tensor([[float(name in row) for name in names] for row in rows])
    else:
        values = multi_hot(rows)
        count = values.shape[1]
        names = [str(at) for at in range(count)] if label_names is None else list(label_names)
    if num_labels not in (None, len(names)) or values.shape[1] != len(names) or len(names) < 2:
        raise errors.bad(
            "num_labels", f"equal the number of classes ({len(names)}), at least two", num_labels
        )
    _, groups = np.unique(values.numpy(), axis=0, return_inverse=True)
    return Targets(MULTI_LABEL, values, groups.reshape(-1), tuple(names))


def _regression(labels: Sequence[Any], num_labels: int | None) -> Targets:
    if num_labels not in (None, 1):
        raise errors.bad(
            "num_labels",
            "be 1 for labels that are floats (regression)",
            num_labels,
            "Give class indices as integers.",
        )
    wrong = [label for label in labels if not _is_number(label)]
    if wrong:
        raise errors.bad("labels", "be numbers for regression", wrong[0])
    values = torch.tensor([float(label) for label in labels])
    if not values.isfinite().all():
        raise errors.bad("labels", "be finite numbers", "nan or infinity")
    return Targets(REGRESSION, values[:, None], values.double().numpy(), ("value",))


def class_indices(
    labels: Sequence[Any], num_labels: int | None, label_names: Sequence[str] | None
) -> tuple[list[int], list[str]]:
    """Read the labels of a training set as class indices.

    Args:
        labels: Class indices, or class names.
        num_labels: Number of classes C. Default: taken from the labels.
        label_names: Names of the classes in the order of the model's outputs. Needed with class
            names as labels whenever that order is not alphabetical.

    Returns:
        Indices (N,), and the C names.

    Raises:
        InvalidInput: There are fewer than two classes, fewer rows than classes, or a label outside
            the range or the names.
        InvalidType: A label is neither an integer nor a string.
    """
    names = _class_names(labels, num_labels, label_names)
    indices = label_indices(labels, names)
    require_two_classes(indices, names)
    if label_names is None:
        warn_near_duplicates(names)
        if num_labels is None:
            warn_gaps(indices, names)
    return indices, names


def label_indices(labels: Sequence[Any], names: Sequence[str]) -> list[int]:
    """Class indices (N,) of labels that are given as indices or as names.

    Args:
        labels: Class indices, or class names.
        names: Names of the classes (C).

    Raises:
        InvalidInput: A label is outside the range or the names.
        InvalidType: A label is neither an integer nor a string.
    """
    if all(isinstance(label, str) for label in labels):
        return _named_indices(labels, list(names))
    indices = [_checked_index(row, label) for row, label in enumerate(labels)]
    outside = sorted({index for index in indices if not 0 <= index < len(names)})
    if outside:
        raise errors.bad(
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
        names = _in_order(set(labels)) if label_names is None else list(label_names)
        if num_labels is not None and len(names) != num_labels:
            raise errors.bad(
                "num_labels",
                f"equal the number of classes ({len(names)}: {', '.join(names)})",
                num_labels,
                "Name all classes with `label_names` if some have no row.",
            )
    else:
        highest = max(_checked_index(row, label) for row, label in enumerate(labels))
        count = highest + 1 if num_labels is None else num_labels
        if label_names is None:
            require_rows(len(labels), count)  # before one name is made for each
        names = [str(index) for index in range(count)] if label_names is None else list(label_names)
        if len(names) != count:
            raise errors.bad("label_names", f"hold {count} names", label_names)
    if len(set(names)) < len(names):
        raise errors.bad("label_names", "name every class once", names)
    return names


def _in_order(names: set[str]) -> list[str]:
    """By the alphabet; numbers by their size, as `LABEL_2` comes before `LABEL_10` in a model."""
    digits = all(name.isascii() and name.isdigit() for name in names)
    return sorted(names, key=lambda name: (int(name) if digits else 0, name))


def _named_indices(labels: Sequence[str], names: list[str]) -> list[int]:
    index = {name: position for position, name in enumerate(names)}
    unknown = sorted(set(labels) - set(index))
    if unknown:
        raise errors.bad("labels", f"be among label_names {names}", unknown)
    return [index[label] for label in labels]


def _checked_index(row: int, label: Any) -> int:
    try:
        if isinstance(label, bool):
            raise TypeError
        return operator.index(label)
    except TypeError:
        raise errors.InvalidType(
            f"`labels[{row}]` must be a class index or, like all others, a class name, but got "
            f"{type(label).__name__}: {label!r}."
            + (" Give 0 and 1, or names." if isinstance(label, bool) else "")
        ) from None
