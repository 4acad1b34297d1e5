"""Mixing in a training loop without a Trainer: plain torch, or accelerate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixup_hf import errors, runtime
from mixup_hf.training.collator import Features, MixupCollator
from mixup_hf.training.loss import row_losses
from mixup_hf.training.mixing_collator import (
    POOL_ROWS,
    ROW_WEIGHTS,
    SOFT_LABELS,
    Drawn,
    MixingCollator,
)
from mixup_hf.training.row_pieces import generating_bar, pieces_of
from mixup_hf.training.schedule import mixed_per_real
from mixup_hf.types import MixedExample, Supplies

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


class LoopRows:
    """The rows of a refill, made chunk by chunk as the loop draws them.

    In several processes all are made at once: their loops need not be in step with each other.

    Args:
        producer: Makes the rows, or has them.
        refill: Which rows; other refills have others.
        wanted: How many rows the refill has.
    """

    def __init__(self, producer: Supplies, refill: int, wanted: int) -> None:
        self.refill, self.wanted = refill, wanted
        self._pieces = pieces_of(producer, None)
        self._size = self._pieces.size(refill, wanted, None)
        self._made: list[MixedExample] = []

    def __len__(self) -> int:
        return self._size

    def take(self, places: list[int]) -> list[MixedExample]:
        """The rows at the given places, made now if they are not there yet."""
        needed = max(places, default=-1) + 1
        if needed > len(self._made):
            self._make(needed if runtime.world_size() == 1 else self._size)
        return [self._made[place] for place in places]

    def _make(self, needed: int) -> None:
        missing = self._pieces.stop(needed, self._size) - len(self._made)
        with generating_bar(missing) as bar:
            while len(self._made) < needed:
                chunks = self._pieces.piece(len(self._made), self._size, self._size)
                self._made += self._pieces.make(self.refill, chunks, self._size, bar.update)


class _InOrder(MixingCollator):
    """Adds the rows of an epoch in their order, as many as the ratio asks for on average.

    Several processes take turns, so that no row is used twice before all have been used.
    """

    def __init__(self, plain: MixupCollator, rows: LoopRows, start: int) -> None:
        self.plain = plain
        self._rows = rows
        self._start = start
        self._real_rows = self._used = 0

    def _draw(self, real: Features) -> tuple[Drawn, list[MixedExample]]:
        self._real_rows += len(real)
        due = mixed_rows(self._real_rows, self.plain.mix_ratio)
        first, step = self._start + runtime.rank(), runtime.world_size()
        places = [(first + at * step) % len(self._rows) for at in range(self._used, due)]
        self._used = due
        return list(zip(places, self._rows.take(places), strict=True)), []


def mixed_rows(real_rows: int, mix_ratio: float) -> int:
    """Generated rows for `real_rows` real ones, rounded down."""
    return int(real_rows * mixed_per_real(mix_ratio))


def mixed_batches(
    loader: Any, plain: MixupCollator, rows: LoopRows, start: int = 0
) -> Iterator[tuple[dict[str, Any], LoopTargets]]:
    """Iterate over a data loader with generated rows added to each batch.

    Workers only fetch rows; batches are collated in this process, by the loader's own collator.

    Args:
        loader: A torch `DataLoader`, prepared by accelerate or not.
        plain: Wraps the loader's collator.
        rows: The generated rows of this epoch's refill, at least one.
        start: Where in them this epoch begins.

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
    collate = _InOrder(plain, rows, start)
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
