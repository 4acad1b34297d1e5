"""Tasks: what the labels of a training set are, as targets that can be mixed."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import _checks
from mixup_hf.mixing import class_indices

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
PROBLEM_TYPES = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)  # as transformers' configs name them


@dataclass(frozen=True)
class Targets:
    """The labels of a training set.

    Attributes:
        problem_type: One of `PROBLEM_TYPES`.
        values: One-hot, multi-hot, or the numbers themselves (N, C), float32.
        groups: What pairing goes by (N,): class indices; sets of labels, numbered; numbers.
        names: Of the columns (C).
    """

    problem_type: str
    values: Tensor
    groups: np.ndarray
    names: tuple[str, ...]


def read_targets(
    labels: Sequence[Any], num_labels: int | None, label_names: Sequence[str] | None
) -> Targets:
    """Read labels as targets.

    Class indices or names are one class a row. Lists are several: of class names, or one 0 or 1 for
    each class. Floats are numbers to be predicted.

    Args:
        labels: One for each row.
        num_labels: C; taken from the labels when None.
        label_names: The classes' names in the order of the model's outputs.

    Raises:
        ValueError: Labels that do not fit one another, or fewer than two classes.
        TypeError: A label of another kind.
    """
    if len(labels) and all(_is_list(label) for label in labels):
        return _multi_label(labels, num_labels, label_names)
    if len(labels) and all(_is_real(label) for label in labels):
        return _regression(labels, num_labels)
    indices, names = class_indices(labels, num_labels, label_names)
    values = F.one_hot(torch.tensor(indices), len(names)).float()
    return Targets(SINGLE_LABEL, values, np.asarray(indices), tuple(names))


def _is_list(label: Any) -> bool:
    return isinstance(label, (list, tuple, set, frozenset, np.ndarray, Tensor)) and (
        not isinstance(label, (np.ndarray, Tensor)) or label.ndim == 1
    )


def _is_real(label: Any) -> bool:
    return isinstance(label, numbers.Real) and not isinstance(label, numbers.Integral)


def _multi_label(
    labels: Sequence[Any], num_labels: int | None, label_names: Sequence[str] | None
) -> Targets:
    rows = [list(label) for label in labels]
    if all(isinstance(name, str) for row in rows for name in row):
        found = sorted({name for row in rows for name in row})
        names = list(label_names) if label_names is not None else found
        unknown = sorted(set(found) - set(names))
        if unknown:
            raise _checks.bad("labels", f"be among label_names {names}", unknown)
        values = torch.tensor([[float(name in row) for name in names] for row in rows])
    else:
        values = _multi_hot(rows)
        count = values.shape[1]
        names = [str(at) for at in range(count)] if label_names is None else list(label_names)
    if num_labels not in (None, len(names)) or values.shape[1] != len(names) or len(names) < 2:
        raise _checks.bad(
            "num_labels", f"equal the number of classes ({len(names)}), at least two", num_labels
        )
    _, groups = np.unique(values.numpy(), axis=0, return_inverse=True)
    return Targets(MULTI_LABEL, values, groups.reshape(-1), tuple(names))


def _multi_hot(rows: list[list[Any]]) -> Tensor:
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise ValueError(
            f"`labels` are lists of {min(widths)} to {max(widths)} values. Multi-label rows need "
            "one 0 or 1 for each class; labels of single tokens cannot be mixed."
        )
    values = torch.tensor([[float(value) for value in row] for row in rows])
    if not ((values == 0) | (values == 1)).all():
        raise _checks.bad("labels", "hold only 0 and 1 in lists", "other values")
    return values


def _regression(labels: Sequence[Any], num_labels: int | None) -> Targets:
    if num_labels not in (None, 1):
        raise _checks.bad(
            "num_labels",
            "be 1 for labels that are floats (regression)",
            num_labels,
            "Give class indices as integers.",
        )
    values = torch.tensor([float(label) for label in labels])
    if not values.isfinite().all():
        raise _checks.bad("labels", "be finite numbers", "nan or infinity")
    return Targets(REGRESSION, values[:, None], values.double().numpy(), ("value",))
