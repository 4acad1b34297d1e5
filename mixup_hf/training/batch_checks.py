"""Checks of a collated batch: each real row still has the tokens and the label of its feature.

Added rows get their labels from the plugin, real rows from the wrapped collator. One that maps
labels, reads another column or moves rows would train the two on different labels, in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.data.targets import MULTI_LABEL, SINGLE_LABEL
from mixup_hf.training.collator import Features, MixupCollator

_TOLERANCE = 0.01  # relative: a collator may make labels of 16 bits


def check_batch(batch: Any, targets: Tensor, features: Features, collator: MixupCollator) -> None:
    """Compare the real rows of a batch with the features that they were made from.

    Args:
        batch: What the collator has made, real rows first.
        targets: The labels in it (R, C).
        features: The real rows, at most R.
        collator: Says which columns hold labels, and what they mean.

    Raises:
        InvalidInput: The collator moves rows, or gives them other labels than their columns say.
    """
    _check_order(batch, features)
    classes = targets.argmax(1).tolist()
    single = collator.problem_type == SINGLE_LABEL
    for at, row in enumerate(features):
        found = [row[key] for key in collator.label_keys if row.get(key) is not None]
        if single and all(type(each) is int and each == classes[at] for each in found):
            continue  # the usual case, at no cost
        for key, label in targets_in(row, collator).items():
            if not agree(label, targets[at]):
                raise _other_label(at, key, row[key], targets, features, collator)


def targets_in(row: Mapping[str, Any], collator: MixupCollator) -> dict[str, Tensor]:
    """The labels of a training row as targets (C,), by column; none of another kind.

    A class name that is not known is a label of no class, zeros, unless another column has a label.
    """
    keys = [key for key in collator.label_keys if row.get(key) is not None]
    found = {}
    for key in keys:
        value = row[key]
        if len(keys) > 1 and isinstance(value, str) and value not in collator.label2id:
            continue
        target = _as_target(value, collator)
        if target is not None:
            found[key] = target
    return found


def agree(label: Tensor, other: Tensor) -> bool:
    """Whether two targets (C,) are the same, up to rounding."""
    return torch.allclose(label, other, rtol=_TOLERANCE, atol=1e-6)


def _as_target(value: Any, collator: MixupCollator) -> Tensor | None:
    """A label as a target (C,); None if it is not of the kind that is mixed."""
    columns, single = collator.num_labels, collator.problem_type == SINGLE_LABEL
    if isinstance(value, str):
        value = collator.label2id.get(value, -1)
    elif collator.problem_type == MULTI_LABEL and _are_names(value):
        return torch.tensor([float(name in value) for name in collator.label2id])
    target = torch.as_tensor(value)
    if not single:
        return target.float().reshape(-1) if target.numel() == columns else None
    if target.numel() != 1 or target.is_floating_point():
        return None  # refused, with the reason, by the collator
    found = torch.zeros(columns)
    if 0 <= int(target) < columns:
        found[int(target)] = 1.0
    return found


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(each, str) for each in value)


def tokens_of(row: Mapping[str, Any]) -> list[int]:
    """Token ids of a row, without padding."""
    return [int(token) for token in _kept_tokens(row["input_ids"], row.get("attention_mask"))]


def _check_order(batch: Any, features: Features) -> None:
    """Raise if the rows of the batch have the tokens of the features in another order.

    A collator that changes tokens, by masking or dropping some, is not taken for one that moves
    rows: of all rows together, the tokens must be the same.
    """
    ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    if not isinstance(ids, Tensor) or not isinstance(mask, Tensor) or ids.shape != mask.shape:
        return
    if not all("input_ids" in row for row in features):
        return
    given = [_kept_tokens(row["input_ids"], row.get("attention_mask")) for row in features]
    made = [_kept_tokens(*row) for row in zip(ids[: len(given)], mask[: len(given)], strict=True)]
    moved = [at for at in range(len(given)) if not np.array_equal(given[at], made[at])]
    if moved and sorted(map(tuple, given)) == sorted(map(tuple, made)):
        raise _moved(moved[0])


def _kept_tokens(ids: Any, mask: Any) -> np.ndarray:
    tokens = np.asarray(ids).reshape(-1)
    return tokens if mask is None else tokens[np.asarray(mask).reshape(-1).astype(bool)]


def _moved(at: int) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"The collator puts rows into another order (in place {at} of this batch is another row "
        "than it was given there), but generated rows are told from real ones by their places. "
        "Leave rows in their order, and let the sampler sort them: "
        "TrainingArguments(train_sampling_strategy='group_by_length')."
    )


def _other_label(
    at: int, key: str, value: Any, targets: Tensor, features: Features, collator: MixupCollator
) -> errors.InvalidInput:
    given = [targets_in(row, collator).get(key) for row in features]
    known = [label.tolist() for label in given if label is not None]
    if len(known) == len(features) and sorted(known) == sorted(targets[: len(features)].tolist()):
        return _moved(at)
    label = targets[at]
    shown: Any = label.tolist()
    if collator.problem_type == SINGLE_LABEL:
        shown = int(label.argmax())
        names = [name for name, index in collator.label2id.items() if index == shown]
        shown = f"{shown} ({names[0]!r})" if names else shown
    return errors.InvalidInput(
        f"Row {at} of this batch has {value!r} in the column {key!r}, but the collator gives it "
        f"the label {shown}. Generated rows are labelled as the columns say, so they would be "
        "trained on other labels than real rows. If the collator maps labels, do that in the data "
        "set (dataset.map), or give InversedMixup `label_names` in the collator's order; if the "
        "rows have several label columns, keep the one that is trained on. If labels are changed "
        "on purpose, for real rows only, set check_rows=False."
    )
