"""Whether the loss that a model computes itself is the one that soft labels take the place of.

For batches that mix, the loss is made from the logits, and the model is given no labels. A model
whose `forward` weights classes or computes a focal loss would be trained on another loss than its
author wrote, in silence. So its own loss of some real rows is compared with the plain one.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from mixup_hf import errors, runtime
from mixup_hf.data.targets import MULTI_LABEL, SINGLE_LABEL
from mixup_hf.training.batch_checks import targets_in
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.head_start import keeping_modes
from mixup_hf.training.loss import logits_of, row_losses
from mixup_hf.training.rehearsal import own_random_state

# From all over the training set: in rows of one class, weights of classes would not show.
MODEL_LOSS_ROWS = 16
_TOLERANCE = 1e-3  # relative, in float32
_TOLERANCE_16 = 5e-2


def check_model_loss(
    args: TrainingArguments, model: Any, rows: list[Any], collator: MixupCollator
) -> None:
    """Raise if the model's own loss of real rows is not the plain mean over rows.

    Not asked are models of transformers with their own loss function, models that take no labels or
    compute no loss, and weights in shards.

    Args:
        args: Of the Trainer: the precision.
        model: The model being trained.
        rows: Features of real rows.
        collator: Makes a batch of them.

    Raises:
        InvalidInput: The model computes another loss.
    """
    takes_labels = "labels" in inspect.signature(model.forward).parameters
    if not takes_labels or _is_stock(model) or runtime.is_sharded():
        return
    targets = [next(iter(targets_in(row, collator).values()), None) for row in rows]
    known = [target for target in targets if target is not None]
    if not rows or len(known) < len(rows):
        return
    device = next(model.parameters()).device
    with own_random_state(device, 0), keeping_modes(model), torch.no_grad():
        model.eval()
        batch = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in collator.collate(rows).items()
        }
        if "labels" not in batch:
            return
        with torch.autocast(device.type, torch.bfloat16, enabled=bool(args.bf16)):
            outputs = model(**batch)
    own = _loss_in(outputs)
    if own is None:
        return
    logits = logits_of(outputs)
    wanted = torch.stack(known).to(logits.device)
    if logits.shape != wanted.shape:
        return  # refused, with the reason, by the hooks
    plain = row_losses(logits, wanted, collator.problem_type).mean()
    low = logits.dtype != torch.float32 or args.bf16 or args.fp16
    if torch.isclose(own.to(plain), plain, rtol=_TOLERANCE_16 if low else _TOLERANCE, atol=1e-5):
        return
    raise _other_loss(model, own.item(), plain.item(), len(rows), collator.problem_type)


def _is_stock(model: Any) -> bool:
    """Whether a model, perhaps with adapters of peft, is one of transformers as it comes."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own_loss = getattr(base, "_loss_function", None)
    return type(base).__module__.partition(".")[0] == "transformers" and own_loss is None


def _loss_in(outputs: Any) -> Tensor | None:
    """The loss among a model's outputs: under its name, or a scalar in front."""
    if isinstance(outputs, Tensor):
        return None
    if isinstance(outputs, tuple | list):
        found = outputs[0]
    else:
        found = outputs.get("loss") if isinstance(outputs, dict) else getattr(outputs, "loss", None)
    return found if isinstance(found, Tensor) and found.numel() == 1 else None


def _other_loss(
    model: Any, own: float, plain: float, rows: int, problem_type: str
) -> errors.InvalidInput:
    name = "mean squared error"
    if problem_type in (SINGLE_LABEL, MULTI_LABEL):
        name = "cross entropy" if problem_type == SINGLE_LABEL else "binary cross entropy"
    return errors.InvalidInput(
        f"{type(model).__name__} computes another loss than plain {name} ({own:.4f} instead of "
        f"{plain:.4f} for {rows} training rows), and soft labels would take its place. For class "
        "weights, set `class_weights`: InversedMixup.from_pretrained(..., "
        "class_weights='balanced') or one number per class. Any other loss: give the Trainer a "
        "`compute_loss_func` that takes soft labels (R, C), and set explicit_loss=True in "
        f"attach(); or set check_rows=False there, and be content with {name}."
    )
