"""Soft cross entropy, normalized over the whole optimizer step; class weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_outputs import SequenceClassifierOutput

from mixup_hf import errors
from mixup_hf.data.targets import MULTI_LABEL, REGRESSION, SINGLE_LABEL

_LEAST = 1e-4  # relative difference that is one

LossFunction = Callable[..., Tensor]


def soft_cross_entropy(
    outputs: Any,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
    *,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross entropy against soft or hard labels, for `Trainer(compute_loss_func=...)`.

    `L = sum_r (-sum_c w_c y_rc log p_rc) / N`, where N counts the rows of the whole optimizer step,
    over all accumulation steps and processes. A row whose labels sum to less than 1 weighs less.

    With class weights this is `torch.nn.CrossEntropyLoss(weight)` given class probabilities: it
    divides by the number of rows. (Given class indices, torch divides by the sum of the rows'
    weights. That sum is not known in one micro-batch of many, so dividing by it would make the loss
    depend on how a step is accumulated.)

    Args:
        outputs: What the model returned, see `logits_of`.
        labels: Soft labels (B, C), float; or class indices (B,), int, as in evaluation.
        num_items_in_batch: What the Trainer counts: elements of `labels` that are not -100, so N
            for class indices and N * C for soft labels. None averages over this batch.
        class_weights: w (C,). Default: 1 for every class.

    Returns:
        A scalar.

    Raises:
        InvalidInput: `labels` is neither (B,) nor (B, C), or there are no logits.
    """
    logits = logits_of(outputs)
    targets = as_soft_labels(labels, logits.shape[-1])
    rows = row_losses(logits, targets, class_weights=class_weights)
    if num_items_in_batch is None:
        return rows.mean()
    count = torch.as_tensor(num_items_in_batch, device=rows.device)
    return rows.sum() / (count / logits.shape[-1] if labels.is_floating_point() else count)


def logits_of(outputs: Any) -> Tensor:
    """The logits (B, C) among what a model returned.

    Args:
        outputs: A model output or dict with `logits`, an object that has them, a tuple in which
            they are the first tensor that is no scalar, or the logits themselves.

    Returns:
        (B, C); of a model with one output that returns (B,), (B, 1).

    Raises:
        InvalidInput: There are none, or they have another shape.
    """
    found = outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
    elif isinstance(outputs, tuple | list):
        found = next((each for each in outputs if isinstance(each, Tensor) and each.ndim), None)
    elif not isinstance(outputs, Tensor):
        found = getattr(outputs, "logits", None)
    if not isinstance(found, Tensor) or found.ndim not in (1, 2):
        shown = sorted(outputs) if isinstance(outputs, Mapping) else type(outputs).__name__
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise errors.InvalidInput(
            f"The model must return logits of shape (rows, classes), but returned {shown}{shape}. "
            "Return them under 'logits', or in a tuple after the loss."
        )
    logits: Tensor = found
    return logits if logits.ndim == 2 else logits.unsqueeze(-1)


def takes_soft_labels(loss: LossFunction | None) -> bool:
    """Whether a loss function is known to take soft labels: it is `soft_cross_entropy`."""
    while isinstance(loss, partial):
        loss = loss.func
    return loss is soft_cross_entropy


def explicit_function(given: bool | LossFunction, class_weights: Tensor | None) -> LossFunction:
    """The `compute_loss_func` of a Trainer with an explicit loss: the one given, or ours.

    Args:
        given: A function that takes soft labels (R, C) as `labels`, or True.
        class_weights: Weights of the classes (C,), for ours.
    """
    if callable(given):
        return given
    if class_weights is None:
        return soft_cross_entropy
    return partial(soft_cross_entropy, class_weights=class_weights)


def check_counts(loss: LossFunction, num_labels: int) -> None:
    """Raise if a loss function divides soft labels by a count that is C times too large.

    The Trainer counts the elements of `labels`, N * C for soft ones. So a loss for class indices
    that divides a sum by `num_items_in_batch` gives soft labels a loss C times too small. It is
    asked for both, of the same rows; one that needs more than logits is not asked.

    Raises:
        InvalidInput: It does.
    """
    rows = 4
    logits = torch.linspace(-1, 1, rows * num_labels).reshape(rows, num_labels)
    hard = torch.arange(rows) % num_labels
    soft = F.one_hot(hard, num_labels).float()
    try:
        with torch.no_grad():
            given = [
                float(
                    loss(
                        SequenceClassifierOutput(logits=logits.clone()),
                        labels.clone(),
                        num_items_in_batch=torch.tensor(labels.numel()),
                    )
                )
                for labels in (hard, soft)
            ]
    except Exception:  # whatever the user's function does with what is no batch of theirs
        return
    if abs(given[0]) > _LEAST and abs(given[0] / num_labels - given[1]) < _LEAST * abs(given[0]):
        raise errors.InvalidInput(
            f"The explicit loss {getattr(loss, '__name__', loss)!r} is {num_labels} times as small "
            f"for soft labels (R, {num_labels}) as for class indices of the same rows: "
            "`num_items_in_batch` counts the elements of `labels`. Divide it by labels.shape[-1] "
            "where labels are floats, as `soft_cross_entropy` does."
        )


def row_losses(
    logits: Tensor,
    targets: Tensor,
    problem_type: str = SINGLE_LABEL,
    *,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Loss of each row (B,), in float32, from logits (B, C) and targets (B, C).

    Cross entropy; for multi-label classification, binary cross entropy averaged over the classes;
    for regression, the squared error averaged over the outputs. These are the losses of
    transformers' heads, with targets that may be mixed.

    Args:
        logits: (B, C).
        targets: (B, C).
        problem_type: As in transformers' configs.
        class_weights: w (C,), for cross entropy only.
    """
    logits, targets = logits.float(), targets.float()
    if problem_type == MULTI_LABEL:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)
    if problem_type == REGRESSION:
        return F.mse_loss(logits, targets, reduction="none").mean(-1)
    weight = None if class_weights is None else class_weights.to(logits.device)
    return F.cross_entropy(logits, targets, weight=weight, reduction="none")


def read_class_weights(
    setting: str | Sequence[float] | None, targets: Tensor, problem_type: str
) -> Tensor | None:
    """The weights of the classes (C,), float32, from the setting `class_weights`.

    Args:
        setting: `"balanced"`, C numbers, or None. Balanced is N / (C n_c), as in scikit-learn: the
            weights of the training rows then average 1.
        targets: Labels of the training set (N, C).
        problem_type: As in transformers' configs.

    Raises:
        InvalidInput: Not C positive numbers, a class without rows, or a task without classes.
    """
    if setting is None:
        return None
    classes = targets.shape[1]
    if problem_type != SINGLE_LABEL:
        raise errors.bad(
            "class_weights", f"be left out for {problem_type!r}", setting, "They weight classes."
        )
    if isinstance(setting, str):
        errors.one_of("class_weights", setting, ("balanced",), "Or give one number per class.")
        counts = targets.sum(0)
        if (counts == 0).any():
            empty = (counts == 0).nonzero().flatten().tolist()
            raise errors.InvalidInput(
                f"`class_weights` = 'balanced' divides by the rows of each class, but the classes "
                f"{empty} have none. Give the weights as a list of {classes} numbers."
            )
        return len(targets) / (classes * counts)
    weights = [float(weight) for weight in setting]
    if len(weights) != classes or min(weights) <= 0:
        raise errors.bad("class_weights", f"be {classes} numbers greater than 0", setting)
    return torch.tensor(weights)


def as_soft_labels(labels: Tensor, num_labels: int) -> Tensor:
    """Soft labels (B, C) from soft labels (B, C) or class indices (B,)."""
    if labels.ndim == 2 and labels.shape[-1] == num_labels and labels.is_floating_point():
        return labels
    if labels.ndim == 1 and not labels.is_floating_point():
        return F.one_hot(labels, num_labels).float()
    raise errors.InvalidInput(
        f"`labels` must be class indices (B,) or soft labels (B, {num_labels}), but got a "
        f"{labels.dtype} tensor of shape {tuple(labels.shape)}."
    )


def smooth(soft_labels: Tensor, factor: float) -> Tensor:
    """Label smoothing: move `factor` of each row's mass evenly to all classes."""
    mass = soft_labels.sum(-1, keepdim=True)
    return (1 - factor) * soft_labels + factor * mass / soft_labels.shape[-1]
