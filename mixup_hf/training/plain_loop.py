"""Mixing in a training loop without a Trainer: plain torch, or accelerate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.training.collator import Features, MixupCollator
from mixup_hf.training.loss import row_losses
from mixup_hf.training.mixing_collator import (
    POOL_ROWS,
    ROW_WEIGHTS,
    SOFT_LABELS,
    Drawn,
    MixingCollator,
)
from mixup_hf.training.schedule import mixed_per_real
from mixup_hf.types import MixedExample

_ADDED = ("labels", SOFT_LABELS, ROW_WEIGHTS, POOL_ROWS)


class LoopTargets(NamedTuple):
    """Targets of a batch of R rows, kept apart from what the model is given.

    A model that is given `labels` computes a loss of hard labels, and one that is given soft labels
    under another name ignores them; so neither is among its inputs.

    Attributes:
        values: Soft labels, multi-hot labels or numbers (R, C), float32.
        weights: Weight of each row (R,); None if all are 1, or part of the soft labels.
        mixed: Which rows are generated (R,), bool.
    """

    values: Tensor
    weights: Tensor | None
    mixed: Tensor


class _InOrder(MixingCollator):
    """Adds the rows of an epoch in their order, as many as the ratio asks for on average."""

    def __init__(self, plain: MixupCollator, rows: Sequence[MixedExample]) -> None:
        self.plain = plain
        self._rows = rows
        self._real_rows = self._used = 0

    def _draw(self, real: Features) -> tuple[Drawn, list[MixedExample]]:
        self._real_rows += len(real)
        due = mixed_rows(self._real_rows, self.plain.mix_ratio)
        places = [at % len(self._rows) for at in range(self._used, due)]
        self._used = due
        return [(at, self._rows[at]) for at in places], []


def mixed_rows(real_rows: int, mix_ratio: float) -> int:
    """Generated rows for `real_rows` real ones, rounded down."""
    return int(real_rows * mixed_per_real(mix_ratio))


def mixed_batches(
    loader: Any, plain: MixupCollator, rows: Sequence[MixedExample]
) -> Iterator[tuple[dict[str, Any], LoopTargets]]:
    """Iterate over a data loader with generated rows added to each batch.

    Workers only fetch rows; batches are collated in this process, by the loader's own collator.

    Args:
        loader: A torch `DataLoader`, prepared by accelerate or not.
        plain: Wraps the loader's collator.
        rows: Generated rows of this epoch (M), at least one.

    Yields:
        The model's inputs, and the targets.

    Raises:
        InvalidState: The loader is already in use by another such loop.
    """
    inner = getattr(loader, "base_dataloader", loader)
    own = inner.collate_fn
    if own is _features:
        raise errors.InvalidState(
            "This data loader is already in a `mixup.batches` loop. Finish or close that one first."
        )
    collate = _InOrder(plain, rows)
    device = getattr(loader, "device", None)
    inner.collate_fn = _features
    try:
        for features in loader:
            yield _split(collate(features), device)
    finally:
        inner.collate_fn = own


def loop_loss(
    logits: Tensor,
    targets: LoopTargets,
    problem_type: str,
    class_weights: Tensor | None,
    num_rows: int | Tensor | None,
) -> Tensor:
    """The loss of a batch, divided by `num_rows`; default: its own R rows."""
    losses = row_losses(logits, targets.values, problem_type, class_weights=class_weights)
    if targets.weights is not None:
        losses = losses * targets.weights
    return losses.mean() if num_rows is None else losses.sum() / num_rows


def _features(features: Features) -> Features:
    """Return the rows uncollated. A module-level function, so that workers can be spawned."""
    return features


def _split(batch: Any, device: torch.device | None) -> tuple[dict[str, Any], LoopTargets]:
    moved = {
        name: value.to(device) if device is not None and isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
    targets = LoopTargets(moved[SOFT_LABELS], moved.get(ROW_WEIGHTS), moved[POOL_ROWS] >= 0)
    return {name: value for name, value in moved.items() if name not in _ADDED}, targets
