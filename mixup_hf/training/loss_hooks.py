"""The soft-label loss inside an unmodified Trainer: two hooks on the model being trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import trainer_pt_utils

from mixup_hf import errors
from mixup_hf.data.targets import SINGLE_LABEL
from mixup_hf.training.loss import row_losses
from mixup_hf.training.mixing_collator import POOL_ROWS, REAL_ROW, ROW_WEIGHTS, SOFT_LABELS


class _Stash(NamedTuple):
    """What a batch carried past the model."""

    targets: Tensor
    num_items: Tensor | int | None
    weights: Tensor | None


class SoftLabelHooks:
    """Own the loss of every batch that carries soft labels; leave all others alone.

    Before the forward pass the soft labels and the pool rows are taken out of the batch, and the
    class indices with them, so that the head computes no loss of its own: given float labels most
    heads would silently train binary cross entropy. After it, the loss is soft cross entropy over
    the rows of the whole optimiser step.

    A Trainer with `label_smoothing_factor` ignores the model's loss and calls its `LabelSmoother`.
    While the hooks are installed, that class hands out the pending loss instead, which is smoothed
    already; for any other batch it does what it always did.

    Args:
        model: The model being trained, not wrapped.
        label_format: The collator's; with `"labels"` the Trainer's own `compute_loss_func` makes
            the loss and the hooks only take out the pool rows.
        on_rows: Called with the pool rows (M,) of every training batch.
        problem_type: Which loss: as `row_losses` takes it.
    """

    # A run that was interrupted left its hooks behind; the next one on the same model takes over.
    _installed: ClassVar[WeakKeyDictionary[nn.Module, SoftLabelHooks]] = WeakKeyDictionary()

    def __init__(
        self,
        model: nn.Module,
        label_format: str,
        on_rows: Callable[[Tensor], None],
        problem_type: str = SINGLE_LABEL,
    ) -> None:
        self.model = model
        self.label_format = label_format
        self.on_rows = on_rows
        self.problem_type = problem_type
        self.losses_made = 0
        self._stash: _Stash | None = None
        self._pending: Tensor | None = None
        self._handles: list[Any] = []
        self._smoother: Callable[..., Any] | None = None

    def install(self, *, label_smoothing: bool) -> None:
        """Put the hooks in place, instead of any that an interrupted run left on the model."""
        left_behind = self._installed.pop(self.model, None)
        if left_behind is not None:
            left_behind.remove()
        self._installed[self.model] = self
        self._handles = [
            self.model.register_forward_pre_hook(self._before, with_kwargs=True),
            self.model.register_forward_hook(self._after, with_kwargs=True),
        ]
        if label_smoothing:
            self._replace_smoother()

    def remove(self) -> None:
        """Take the hooks away; may be called twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._installed.get(self.model) is self:
            del self._installed[self.model]
        if self._smoother is not None:
            _set_smoother(self._smoother)
            self._smoother = None

    def _before(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if POOL_ROWS not in kwargs:
            return None
        kept = dict(kwargs)
        rows = kept.pop(POOL_ROWS)
        self.on_rows(rows[rows != REAL_ROW])
        if self.label_format == "labels":
            _require_no_labels(kept)
        else:
            kept.pop("labels", None)
            self._stash = _Stash(
                kept.pop(SOFT_LABELS),
                kept.pop("num_items_in_batch", None),
                kept.pop(ROW_WEIGHTS, None),
            )
        return args, kept

    def _after(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], outputs: Any
    ) -> Any:
        if self._stash is None:
            return None
        soft, count, weights = self._stash
        self._stash = None
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if logits.shape[-1] != soft.shape[-1]:
            raise errors.InvalidInput(
                f"`num_labels` must equal the model's {logits.shape[-1]} classes, but the mixed "
                f"labels have {soft.shape[-1]}. Give InversedMixup the model's `num_labels`."
            )
        rows = row_losses(logits, soft, self.problem_type)
        if weights is not None:
            rows = rows * weights
        loss = rows.mean() if count is None else rows.sum() / torch.as_tensor(count).to(rows.device)
        self.losses_made += 1
        if self._smoother is not None:
            self._pending = loss
        if isinstance(outputs, dict):
            outputs["loss"] = loss
            return outputs
        return (loss, *outputs)

    def _replace_smoother(self) -> None:
        original: Callable[..., Any] = trainer_pt_utils.LabelSmoother.__call__
        self._smoother = original

        def smoothed(smoother: Any, *args: Any, **kwargs: Any) -> Any:
            if self._pending is None:
                return original(smoother, *args, **kwargs)
            loss, self._pending = self._pending, None
            return loss

        _set_smoother(smoothed)


def _set_smoother(call: Callable[..., Any]) -> None:
    # setattr: to a type checker, a method is not there to be assigned.
    setattr(trainer_pt_utils.LabelSmoother, "__call__", call)  # noqa: B010


def _require_no_labels(kwargs: Mapping[str, Any]) -> None:
    if "labels" in kwargs:
        raise errors.InvalidState(
            "The collator emits soft labels as `labels`, but the Trainer passes them on to the "
            "model, which would train binary cross entropy. Give it the loss: "
            "Trainer(..., compute_loss_func=soft_cross_entropy)."
        )
