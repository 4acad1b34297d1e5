"""The soft-label loss inside an unmodified Trainer: two hooks on the model being trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.trainer_pt_utils import LabelSmoother
from transformers.utils.generic import ModelOutput

from mixup_hf import errors
from mixup_hf.data.targets import SINGLE_LABEL
from mixup_hf.training.contrastive import NO_CONTRAST, Contrast, contrastive_term
from mixup_hf.training.loss import logits_of, row_losses
from mixup_hf.training.mixing_collator import POOL_ROWS, ROW_WEIGHTS, SOFT_LABELS


class _Stash(NamedTuple):
    """What a batch carried past the model."""

    targets: Tensor
    pool_rows: Tensor
    num_items: Tensor | int | None
    weights: Tensor | None
    attention_mask: Tensor | None
    input_ids: Tensor | None


class SoftLabelHooks:
    """Compute the loss of every batch that has soft labels; leave all others alone.

    Before the forward pass the soft labels and the pool rows are taken out of the batch, and the
    class indices with them, so that the head computes no loss: given float labels, most heads would
    silently train binary cross entropy. After it, the loss is soft cross entropy, divided by the
    rows of the whole optimizer step. The contrastive term is a mean over the pairs of B rows and
    counts as these do, B / N in a step of N rows.

    A Trainer may ignore that loss: it has a `compute_loss_func`, or a `compute_loss` that computes
    class weights or a focal loss from the hard labels. So the loss is watched: unless a gradient
    flows through it, `require_gradient` raises.

    Args:
        model: The model being trained, not wrapped.
        label_format: The collator's. With `"labels"` the Trainer's `compute_loss_func` makes the
            loss, and the hooks only take out the pool rows.
        on_rows: Called with the pool rows (R,) of every training batch, -1 for real rows.
        problem_type: Which loss, see `row_losses`.
        class_weights: Weights of the classes (C,) in the loss.
        contrast: The contrastive term.
        on_losses: Called with the loss of each row (R,), before weights, and the pool rows (R,).
        own_loss: Whether the Trainer has a `compute_loss` of the user's.

    Attributes:
        losses_made: Losses computed since the last optimizer step that could be trained on.
        gradients: How many of them have received a gradient.
    """

    # A run that was interrupted left its hooks behind; the next one on the same model removes them.
    _installed: ClassVar[WeakKeyDictionary[nn.Module, SoftLabelHooks]] = WeakKeyDictionary()

    def __init__(
        self,
        model: nn.Module,
        label_format: str,
        on_rows: Callable[[Tensor], None],
        problem_type: str = SINGLE_LABEL,
        class_weights: Tensor | None = None,
        contrast: Contrast = NO_CONTRAST,
        on_losses: Callable[[Tensor, Tensor], None] | None = None,
        *,
        own_loss: bool = False,
    ) -> None:
        self.model = model
        self.own_loss = own_loss
        self.label_format = label_format
        self.on_rows = on_rows
        self.on_losses = on_losses
        self.problem_type = problem_type
        self.class_weights = class_weights
        self._contrastive = contrastive_term(model, contrast, problem_type)
        self.losses_made = self.gradients = 0
        self._stash: _Stash | None = None
        self._handles: list[Any] = []

    def install(self) -> None:
        """Register the hooks, in place of any that an interrupted run left on the model."""
        left_behind = self._installed.pop(self.model, None)
        if left_behind is not None:
            left_behind.remove()
        self._installed[self.model] = self
        self._handles = [
            self.model.register_forward_pre_hook(self._before, with_kwargs=True),
            self.model.register_forward_hook(self._after, with_kwargs=True),
        ]
        if self._contrastive is not None:
            self._handles.append(self._contrastive.install())

    def remove(self) -> None:
        """Remove the hooks; may be called twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._installed.get(self.model) is self:
            del self._installed[self.model]

    def require_gradient(self) -> None:
        """Raise unless the soft-label loss is what the model is trained on.

        Raises:
            InvalidState: No batch with soft labels reached the model, or the Trainer computed
                another loss than the one made here.
        """
        made, received = self.losses_made, self.gradients
        self.losses_made = self.gradients = 0  # each optimizer step is checked
        if self.label_format == "labels" or received:
            return
        if made:
            raise errors.InvalidState(
                "The soft labels of mixed rows are not used: the Trainer trains on another loss, "
                "from a `compute_loss_func` or a `compute_loss` of your own. For class weights, "
                "set `class_weights`: InversedMixup.from_pretrained(..., class_weights='balanced') "
                "or one number per class. If your loss accepts soft labels (R, C) as `labels`, set "
                "explicit_loss=True in attach() or trainer_kwargs(). This step was not taken."
            )
        raise errors.InvalidState(
            "A training step is about to end without the soft-label loss: a `compute_loss` of your "
            "own does not call model(**inputs) with all inputs, the Trainer was given another "
            "collator than the callback, or its model was replaced after training began. Use "
            "mixup.attach(trainer), or Trainer(..., **mixup.trainer_kwargs(tokenizer))."
        )

    def _before(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if POOL_ROWS not in kwargs:
            return None
        kept = dict(kwargs)
        rows = kept.pop(POOL_ROWS)
        self.on_rows(rows)
        if self.label_format == "labels":
            _require_no_labels(kept)
        else:
            kept.pop("labels", None)
            self._stash = _Stash(
                kept.pop(SOFT_LABELS),
                rows,
                kept.pop("num_items_in_batch", None),
                kept.pop(ROW_WEIGHTS, None),
                kept.get("attention_mask"),
                kept.get("input_ids"),
            )
            if self._contrastive is not None:
                self._contrastive.listen()
        return args, kept

    def _after(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], outputs: Any
    ) -> Any:
        if self._stash is None:
            return None
        soft, pool_rows, items, weights, mask, ids = self._stash
        self._stash = None
        logits = logits_of(outputs)
        if logits.shape[-1] != soft.shape[-1]:
            raise errors.InvalidInput(
                f"`num_labels` must equal the model's {logits.shape[-1]} classes, but the mixed "
                f"labels have {soft.shape[-1]}. Give InversedMixup the model's `num_labels`."
            )
        rows = row_losses(logits, soft, self.problem_type, class_weights=self.class_weights)
        if self.on_losses is not None and model.training:
            self.on_losses(rows.detach(), pool_rows.to(rows.device))
        if weights is not None:
            rows = rows * weights
        count = len(rows) if items is None else self._rows_in(items, soft).to(rows.device)
        loss = rows.mean() if items is None else rows.sum() / count
        if self._contrastive is not None:
            term = self._contrastive.take(soft, mask, ids, pool_rows)
            loss = loss if term is None else loss + term * len(rows) / count
        if loss.requires_grad:
            self.losses_made += 1
            loss.register_hook(self._count_gradient)
        return self._with_loss(outputs, loss)

    def _rows_in(self, items: Tensor | int, soft: Tensor) -> Tensor:
        """Rows of the optimizer step; the Trainer has counted the elements of its labels."""
        counted = torch.as_tensor(items)
        return counted if self.problem_type == SINGLE_LABEL else counted / soft.shape[-1]

    def _with_loss(self, outputs: Any, loss: Tensor) -> Any:
        """The outputs with the loss in front, where the Trainer and scripts look for it."""
        if isinstance(outputs, Tensor):
            # Code that computes a loss from logits would stumble over a tuple; it gets what it
            # expects, and `require_gradient` says that its loss ignores the soft labels.
            return outputs if self.own_loss else (loss, outputs)
        if isinstance(outputs, ModelOutput) and _declares_all(outputs):
            rest = {name: value for name, value in outputs.items() if name != "loss"}
            return type(outputs)(**{"loss": loss, **rest})
        if isinstance(outputs, dict):
            outputs["loss"] = loss
            return outputs
        if isinstance(outputs, tuple | list):
            if "loss" in getattr(outputs, "_fields", ()):
                return outputs._replace(loss=loss)  # type: ignore[union-attr]
            return (loss, *(outputs[1:] if outputs[0] is None else outputs))
        outputs.loss = loss
        return outputs

    def _count_gradient(self, gradient: Tensor) -> None:
        self.gradients += 1


class SoftLabelSmoother(LabelSmoother):
    """Label smoothing in a Trainer that mixes: `attach` puts it in the place of the Trainer's.

    With `label_smoothing_factor` a Trainer ignores the model's loss and smooths the labels in its
    `LabelSmoother`. For a batch with soft labels, which the collator has smoothed already, this one
    returns the loss that the hooks made; for all others it is the Trainer's.
    """

    def __call__(self, model_output: Any, labels: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The loss in `model_output` if there is one, else the Trainer's smoothed loss."""
        # The Trainer has popped the labels, so only the hooks can have put a loss there.
        is_dict = isinstance(model_output, dict)
        loss = model_output.get("loss") if is_dict else model_output[0]
        if isinstance(loss, Tensor) and loss.ndim == 0:
            return loss
        call: Any = super().__call__
        return call(model_output, labels, *args, **kwargs)


def _declares_all(outputs: ModelOutput) -> bool:
    """Whether outputs like these, and with a loss, can be made anew."""
    declared: Any = fields(outputs) if is_dataclass(outputs) else ()
    return {"loss", *outputs} <= {field.name for field in declared}


def _require_no_labels(kwargs: Mapping[str, Any]) -> None:
    if "labels" in kwargs:
        raise errors.InvalidState(
            "The collator emits soft labels as `labels`, but the Trainer passes them on to the "
            "model, which would train binary cross entropy. Give it the loss: "
            "Trainer(..., compute_loss_func=soft_cross_entropy)."
        )
