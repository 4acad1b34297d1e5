"""Soft cross entropy, normalised over the whole optimiser step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import errors


def soft_cross_entropy(
    outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Cross entropy against soft or hard labels; made for `Trainer(compute_loss_func=...)`.

    `L = sum_r (-sum_c y_rc log p_rc) / N`, where N counts the rows of the whole optimiser step,
    over all accumulation steps and processes. A row whose labels sum to less than 1 weighs less.

    Args:
        outputs: A model output with `logits` (B, C), or a tuple that starts with them.
        labels: Soft labels (B, C), float; or class indices (B,), int, as in evaluation.
        num_items_in_batch: What the Trainer counts: elements of `labels` that are not -100, so N
            for class indices and N * C for soft labels. None averages over this batch.

    Returns:
        A scalar.

    Raises:
        ValueError: `labels` is neither (B,) nor (B, C).
    """
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
    targets = as_soft_labels(labels, logits.shape[-1])
    rows = row_losses(logits, targets)
    if num_items_in_batch is None:
        return rows.mean()
    count = torch.as_tensor(num_items_in_batch, device=rows.device)
    return rows.sum() / (count / logits.shape[-1] if labels.is_floating_point() else count)


def row_losses(
    logits: Tensor, targets: Tensor, problem_type: str = "single_label_classification"
) -> Tensor:
    """Loss of each row (B,), in float32, from logits (B, C) and targets (B, C).

    Cross entropy; with several labels a row, the mean binary cross entropy of the classes; for
    numbers, the mean squared error. As transformers' heads do, with targets that may be mixed.
    """
    logits, targets = logits.float(), targets.float()
    if problem_type == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)
    if problem_type == "regression":
        return F.mse_loss(logits, targets, reduction="none").mean(-1)
    return F.cross_entropy(logits, targets, reduction="none")


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
