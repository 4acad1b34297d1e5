"""Trainings that mixing cannot join, refused before the first step."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import TrainingArguments

from mixup_hf import errors, runtime
from mixup_hf.data.targets import SINGLE_LABEL
from mixup_hf.training.checks import RowContract, check_smoothing
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.mixing_collator import SeenRows
from mixup_hf.training.model_loss import MODEL_LOSS_ROWS, check_model_loss

_ON_FAILURE = ("stop", "real_rows")


def check_refills(
    refill_every: int, rows_per_refill: int | None, warmup_epochs: int, on_failure: str
) -> None:
    """Raise `InvalidInput` unless rows can be made at such times."""
    errors.at_least("warmup_epochs", warmup_epochs, 0)
    errors.one_of("on_failure", on_failure, _ON_FAILURE)
    errors.at_least("refill_every", refill_every, 0, "0 fills the pool once.")
    if rows_per_refill is not None:
        errors.at_least("rows_per_refill", rows_per_refill, 1)


def check_training(
    args: TrainingArguments,
    loader: Any,
    model: Any,
    collator: MixupCollator,
    contract: RowContract | None = None,
    *,
    attached: bool,
    weighs: bool = False,
) -> None:
    """Raise unless mixing can join this training.

    Args:
        args: Of the Trainer.
        loader: The train loader, as accelerate prepared it.
        model: The model being trained.
        collator: The plugin's.
        contract: Compares the Trainer's rows and classes with the plugin's.
        attached: Whether `attach` put the plugin into the Trainer.
        weighs: Whether the plugin weights classes: then the model's own loss may be another.

    Raises:
        InvalidInput: Its batches, model, labels or loss cannot be mixed, its rows are not those of
            the plugin, or its processes train apart.
        InvalidState: The Trainer was given another collator.
    """
    _refuse_alone(args)
    _refuse_unsharded(args)
    _refuse_unsupported(args, loader, model, collator.problem_type)
    _require_collator(loader, collator)
    if collator.label_format != "labels":
        _refuse_needed_labels(model)
    _warn_of_uploads(args)
    check_smoothing(
        args.label_smoothing_factor, attached=attached, label_format=collator.label_format
    )
    if contract is not None:
        contract.check(model, loader.dataset)
    smooths = args.label_smoothing_factor > 0  # then the Trainer ignores the model's own loss
    if collator.label_format != "labels" and collator.checks_batches and not (weighs or smooths):
        check_model_loss(args, model, SeenRows(loader).some(MODEL_LOSS_ROWS), collator)


def refuse_unwatchable(args: TrainingArguments, label_format: str) -> None:
    """Raise where `auto_off` would have no development losses to look at."""
    if str(getattr(args.eval_strategy, "value", args.eval_strategy)) == "no":
        raise errors.InvalidInput(
            "`auto_off` watches the development set, but `eval_strategy` is 'no'. Give the Trainer "
            "an eval_dataset and TrainingArguments(eval_strategy='epoch'), or leave `auto_off` out."
        )
    if label_format == "labels" or args.label_smoothing_factor > 0:
        raise errors.InvalidInput(
            "`auto_off` reads the loss of each row off the model, which the Trainer gives no "
            "labels with `explicit_loss` or `label_smoothing_factor`. Leave one of them out."
        )


def _refuse_needed_labels(model: Any) -> None:
    """Raise for a model that cannot be called without labels, as it is for soft ones."""
    labels = inspect.signature(model.forward).parameters.get("labels")
    if labels is not None and labels.default is inspect.Parameter.empty:
        raise errors.bad(
            "model",
            "run without labels",
            f"{type(model).__name__}.forward, which requires `labels`",
            "Give the argument a default, `labels=None`, and return the logits then.",
        )


def _warn_of_uploads(args: TrainingArguments) -> None:
    strategy = str(getattr(args.hub_strategy, "value", args.hub_strategy))
    if args.push_to_hub and "checkpoint" in strategy:
        runtime.warn(
            f"`hub_strategy` = {strategy!r} uploads checkpoints, which hold the generated rows and "
            "the training and unlabelled texts among them. 'every_save' and 'end' upload none."
        )


def _refuse_alone(args: TrainingArguments) -> None:
    """Raise where several processes were started, and each would train a model of its own."""
    started = runtime.processes_started()
    if started == 1 or args.world_size > 1:
        return
    raise errors.InvalidInput(
        f"The launcher has started {started} processes, but each would train alone, on all rows, "
        "and write to the same output_dir: on CPUs they train together only with "
        "TrainingArguments(use_cpu=True). Set it, or start one process."
    )


def _refuse_unsharded(args: TrainingArguments) -> None:
    """Raise where several processes were to share the model out, and accelerate does not do it."""
    asked = runtime.sharding_asked(args)
    if asked is None or runtime.world_size() == 1 or runtime.is_sharded():
        return
    raise errors.InvalidInput(
        f"`{asked}` was asked for, but accelerate leaves it out on {args.device.type!r} devices: "
        "each process would hold the whole model. Leave it out (processes on CPUs then train "
        "through DDP), or start the processes on GPUs."
    )


def _refuse_unsupported(
    args: TrainingArguments, loader: Any, model: Any, problem_type: str
) -> None:
    """Raise for set-ups whose batches, model or labels cannot be mixed."""
    if args.n_gpu > 1:
        raise errors.InvalidInput(
            f"One process with {args.n_gpu} GPUs trains through DataParallel, whose replicas "
            "cannot share the loss. Start one process per GPU: `accelerate launch script.py`."
        )
    if runtime.is_dispatched(loader):
        raise errors.InvalidInput(
            "The batches of this data set are made on one process and cut apart for the others "
            "(dispatch_batches), which would tear mixed rows from their labels. Set "
            "TrainingArguments(accelerator_config={'dispatch_batches': False})."
        )
    if not hasattr(loader, "base_dataloader"):
        raise errors.InvalidInput(
            f"`train_dataloader` must be one that accelerate prepared, but got "
            f"{type(loader).__name__}. Do not override Trainer.get_train_dataloader."
        )
    _refuse_batches(args, loader)
    if "TokenClassification" in type(model).__name__:
        raise errors.InvalidInput(
            f"{type(model).__name__} labels single tokens, and a mixed sentence has none of its "
            "parents' tokens to label. Mixing is for labels of whole texts."
        )
    problem = getattr(getattr(model, "config", None), "problem_type", None)
    if problem not in (None, problem_type):
        raise errors.InvalidInput(
            f"`problem_type` must be {problem_type!r}, as the labels given to InversedMixup are, "
            f"but the model has {problem!r}. Lists are several labels a row, floats are regression."
        )
    if problem_type != SINGLE_LABEL and args.label_smoothing_factor > 0:
        raise errors.InvalidInput(
            f"`label_smoothing_factor` must be 0 for {problem_type!r}: the Trainer would smooth "
            "the labels as if they were classes."
        )


def _refuse_batches(args: TrainingArguments, loader: Any) -> None:
    """Raise where batches cannot be counted, so that it is not known which rows each draws."""
    strategy = str(getattr(args, "train_sampling_strategy", ""))
    if strategy == "batch_rebalance":
        raise errors.InvalidInput(
            "`train_sampling_strategy` = 'batch_rebalance' makes batches of unequal size, and "
            "generated rows are drawn by the number of a batch. Leave it out, or set 'random'."
        )
    shards = getattr(loader.dataset, "num_shards", None)
    streamed = not hasattr(loader.dataset, "__len__")
    if streamed and shards is not None and args.dataloader_num_workers > shards:
        raise errors.InvalidInput(
            f"`dataloader_num_workers` = {args.dataloader_num_workers}, but the stream has "
            f"{shards} shards: workers without one would leave, and batches could not be counted. "
            f"Set it to {shards} at most."
        )


def _require_collator(loader: Any, collator: MixupCollator) -> None:
    """Raise when the Trainer was given another collator than the callback."""
    collate = loader.base_dataloader.collate_fn
    if getattr(collate, "data_collator", collate) is not collator:
        raise errors.InvalidState(
            f"The Trainer was given another collator ({type(collate).__name__}) than this "
            "callback. Pass both: Trainer(..., **mixup.trainer_kwargs(tokenizer)); a collator "
            "of your own goes into trainer_kwargs(tokenizer, my_collator)."
        )
