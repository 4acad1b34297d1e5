"""Puts a plugin's collator, callback and loss into a Trainer that is built already."""

from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LabelSmoother

from mixup_hf import errors
from mixup_hf.training.callback import MixupCallback
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.loss import LossFunction
from mixup_hf.training.loss_hooks import SoftLabelSmoother
from mixup_hf.training.samples import SampleTables


class FiguresForTrackers(TrainerCallback):
    """Adds what a `MixupCallback` logs before trackers read the logs.

    A Trainer calls its trackers before the callbacks of a script, and what is added to the logs
    after a tracker was called does not reach it.

    Args:
        callback: The plugin's.
        trainer: Its callbacks include the trackers.
        samples: Shows generated rows in them; None shows none.
    """

    def __init__(
        self, callback: MixupCallback, trainer: Trainer, samples: SampleTables | None = None
    ) -> None:
        self.callback = callback
        self.trainer = trainer
        self.samples = samples

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add what was generated."""
        self.callback.on_log(args, state, control, **kwargs)
        if self.samples is not None and "loss" in kwargs["logs"]:
            trackers = self.trainer.callback_handler.callbacks
            self.samples.show(self.callback.pool, trackers, state)


def require_tokenizer(trainer: Any) -> PreTrainedTokenizerBase:
    """The Trainer's tokenizer.

    Raises:
        InvalidType: Not a Trainer.
        InvalidState: Mixing is attached to it already.
        InvalidInput: It has no tokenizer.
    """
    if not isinstance(trainer, Trainer):
        raise errors.InvalidType(
            f"`trainer` must be a transformers.Trainer, but got {type(trainer).__name__}. In a "
            "loop without one, use mixup.batches(loader, tokenizer, epoch=epoch)."
        )
    attached = [
        each for each in trainer.callback_handler.callbacks if isinstance(each, MixupCallback)
    ]
    if attached or isinstance(trainer.data_collator, MixupCollator):
        raise errors.InvalidState(
            "This Trainer mixes already: it was given trainer_kwargs(), or attach() was called "
            "before. Attach once; to change settings, build another Trainer."
        )
    tokenizer = trainer.processing_class
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise errors.InvalidInput(
            "The Trainer has no tokenizer, and generated texts must be tokenized: set "
            f"Trainer(..., processing_class=tokenizer). It has {type(tokenizer).__name__}."
        )
    return tokenizer


def own_loss(trainer: Trainer) -> LossFunction | None:
    """What the Trainer was built with to compute the loss: a function, or an overridden method."""
    loss: Any = trainer.compute_loss if _overrides_loss(trainer) else None
    found: LossFunction | None = trainer.compute_loss_func or loss
    return found


def _overrides_loss(trainer: Trainer) -> bool:
    return type(trainer).compute_loss is not Trainer.compute_loss


def connect(trainer: Trainer, kwargs: dict[str, Any], samples: SampleTables | None = None) -> None:
    """Give a Trainer what `trainer_kwargs` returns, and check it at once.

    Args:
        trainer: As built.
        kwargs: As `TrainerPlugin.trainer_kwargs` returns them.
        samples: Shows generated rows in trackers.
    """
    callback, *others = kwargs["callbacks"]
    if callback.contract is not None and callback.collator.mix_ratio > 0:
        callback.contract.check(trainer.model, trainer.train_dataset)
    trainer.data_collator = kwargs["data_collator"]
    trainer.add_callback(callback)
    # `add_callback` appends: too late for trackers, which read the figures and may save the model.
    trainer.callback_handler.callbacks[:0] = [
        FiguresForTrackers(callback, trainer, samples),
        *others,
    ]
    callback.collator.has_callback = True
    callback.own_loss = _overrides_loss(trainer)
    if not callback.own_loss:
        trainer.compute_loss_func = kwargs.get("compute_loss_func")
    use_soft_smoother(trainer)


def use_soft_smoother(trainer: Trainer) -> None:
    """Let the Trainer's label smoothing keep the loss of soft labels, which are smoothed already.

    On this Trainer only, for batches that mix; with `label_smoothing_factor` = 0 nothing changes.
    `attach` calls it; a script that swaps the collator and smooths labels may do so too.
    """
    smoother = trainer.label_smoother
    if type(smoother) is LabelSmoother:
        trainer.label_smoother = SoftLabelSmoother(smoother.epsilon, smoother.ignore_index)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, MixupCallback):
            callback.attached = True
