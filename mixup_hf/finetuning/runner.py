"""A whole fine-tuning run from a config: what `mixup-hf finetune` and its recipe do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    set_seed,
)

from mixup_hf import errors, runtime
from mixup_hf.config import FinetuneConfig, LoraConfig
from mixup_hf.data.sources import resolve
from mixup_hf.data.tables import LabelledTexts
from mixup_hf.data.targets import SINGLE_LABEL, Targets, read_targets
from mixup_hf.data.text_pairs import split_sides
from mixup_hf.finetuning import compare, results, splits
from mixup_hf.finetuning.arguments import saves_by_default, training_arguments
from mixup_hf.finetuning.metrics import metrics_of
from mixup_hf.finetuning.outcome import Fitted, counted, fitted, learned
from mixup_hf.finetuning.student import load_student, load_tokenizer
from mixup_hf.inverter.model import Inverter
from mixup_hf.training.attaching import use_soft_smoother
from mixup_hf.training.callback import MixupCallback
from mixup_hf.training.checkpointing import last_finished
from mixup_hf.training.inversed import InversedMixup
from mixup_hf.training.offline import OfflineMixup
from mixup_hf.training.plugin import TrainerPlugin
from mixup_hf.types import MixedExample


class Attaches(Protocol):
    """Anything a Trainer is given beside model and data, such as a `TrainerPlugin`."""

    def trainer_kwargs(
        self, tokenizer: PreTrainedTokenizerBase, *, max_length: int | None = None
    ) -> dict[str, Any]:
        """Keyword arguments for `Trainer(...)`."""
        ...


def finetune(config: FinetuneConfig, inverter: Inverter | None = None) -> dict[str, Any]:
    """Fine-tune a model, with mixed rows or without, and measure it on the test split.

    Writes the model and its tokenizer, `metrics.json`, `history.json` and, for a run that mixes,
    `mixed.jsonl` with every sentence trained on. Validation rows, where the config names some,
    choose the checkpoint; the test split is read once, at the end. With `compare`, a baseline is
    trained for the same number of steps into `output_dir/baseline`.

    Args:
        config: The run.
        inverter: An inverter that is already loaded, to be used instead of the config's aligner.

    Returns:
        The content of `metrics.json`: the test metrics of the task, numbers of rows and steps,
        `seconds`, and with `compare` also `baseline` and `comparison`.

    Raises:
        InvalidInput: The data, the training arguments or the output folder cannot be used.
    """
    started = time.monotonic()
    compare.check(config)
    output = Path(config.output_dir)
    fresh = not config.training.get("resume_from_checkpoint")
    if fresh:
        results.check(output)
        results.refuse_inputs(output, _inputs(config))
    elif config.training["resume_from_checkpoint"] is True:
        config = _resuming(config, output)
    data = splits.read(config)
    training_arguments(config, data.targets.problem_type)  # refused before a model is loaded
    mixup = _prepare_mixup(config, data, inverter)
    if fresh:
        results.clear(output)
    discard = saves_by_default(config)
    saved = output if config.save_model else None
    fitted = _fit(config, data, mixup, save_to=saved, discard=discard)
    metrics, rows = fitted.metrics | _committee(mixup), (data.train.texts, data.targets)
    if config.compare:
        if runtime.is_main_process():  # a run that is stopped in the baseline has lost nothing
            results.write(output, metrics, fitted.history, fitted.used, *rows)
            results.remove_checkpoints(output / results.BASELINE)
        baseline = _fit(compare.baseline_of(config, fitted), data, None, discard=discard)
        metrics = metrics | {
            "baseline": baseline.metrics,
            "comparison": compare.compare(fitted, baseline),
        }
        if runtime.is_main_process():
            results.write(output / results.BASELINE, baseline.metrics, baseline.history, [], ())
    metrics = metrics | {"seconds": round(time.monotonic() - started, 1)}
    if runtime.is_main_process():
        results.write(output, metrics, fitted.history, fitted.used, *rows)
    return metrics


def _resuming(config: FinetuneConfig, output: Path) -> FinetuneConfig:
    """The config with the checkpoint that `resume_from_checkpoint: true` means."""
    last = last_finished(output)
    if last is None:
        rule = f"be left out, as `output_dir` = {str(output)!r} has no checkpoint to resume from"
        raise errors.bad("training.resume_from_checkpoint", rule, True)
    return replace(config, training=config.training | {"resume_from_checkpoint": last})


def _inputs(config: FinetuneConfig) -> dict[str, str | None]:
    """Everything that a run reads, by the setting that names it."""
    files = ("train_file", "test_file", "validation_file", "unlabeled_file")
    data = {f"data.{name}": getattr(config.data, name) for name in files}
    mixing = {"mixup.rows_file": config.mixup.rows_file, "mixup.aligner": config.mixup.aligner}
    return {"model": config.model, "data.dataset": config.data.dataset} | data | mixing


def fit(
    config: FinetuneConfig,
    train: LabelledTexts,
    test: LabelledTexts,
    names: Sequence[str] | None,
    plugin: Attaches | None,
    *,
    lora: LoraConfig | None = None,
    freeze_embeddings: bool = False,
) -> Fitted:
    """Train on `train` without validation rows, and measure on `test`, and on `train` itself.

    The metrics `train_accuracy` and `train_loss` of the real training rows, measured after
    training, tell whether it has converged.

    Args:
        config: Model, training arguments and seed; its data and mixup settings are not used.
        train: Training rows.
        test: Test rows.
        names: The classes in the order of the model's outputs.
        plugin: What is added to the plain Trainer; None for nothing.
        lora: As for `load_student`.
        freeze_embeddings: As for `load_student`.
    """
    targets = read_targets(train.labels, None, names, config.data.problem_type)
    load = partial(load_student, lora=lora, freeze_embeddings=freeze_embeddings)
    data = splits.Splits(train, None, test, targets)
    return _fit(config, data, plugin, load=load, measure_train=True)


def _fit(
    config: FinetuneConfig,
    data: splits.Splits,
    plugin: Attaches | None,
    *,
    save_to: Path | None = None,
    discard: bool = False,
    load: Callable[..., Any] = load_student,
    measure_train: bool = False,
) -> Fitted:
    """Train and measure; `discard` removes the checkpoints that were chosen among."""
    started = time.monotonic()
    source = resolve(config.model, revision=config.model_revision)
    tokenizer = load_tokenizer(source.path)
    args = training_arguments(config, data.targets.problem_type)
    # The lines that a script of one's own gains: a plugin, and its keyword arguments.
    max_length = config.data.max_length
    kwargs: dict[str, Any] = {"data_collator": DataCollatorWithPadding(tokenizer)}
    if plugin is not None:
        kwargs |= plugin.trainer_kwargs(tokenizer, max_length=max_length)

    set_seed(config.seed)  # the head is drawn here: the same one with and without mixup
    rows = {
        name: None if table is None else tokenized(table, data.targets, tokenizer, max_length)
        for name, table in (("train", data.train), ("validation", data.validation))
    }
    trainer = Trainer(
        model=load(source.path, data.targets, tokenizer),
        args=args,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        compute_metrics=metrics_of(data.targets.problem_type, _class_counts(data.targets)),
        **kwargs,
    )
    use_soft_smoother(trainer)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    if save_to is not None:
        results.save_model(trainer, save_to)
    if discard and runtime.is_main_process():
        results.remove_checkpoints(Path(config.output_dir))
    test = tokenized(data.test, data.targets, tokenizer, max_length)
    predicted = trainer.predict(test, metric_key_prefix="test")
    used = _used_rows(kwargs.get("callbacks", []))
    on_train = None
    if measure_train and rows["train"] is not None:
        on_train = trainer.predict(rows["train"], metric_key_prefix="train")
    counts = (
        counted(data, used, trainer)
        | learned(data.targets.problem_type, on_train)
        | {
            "seed": config.seed,
            "seconds": round(time.monotonic() - started, 1),
        }
    )
    return fitted(data.targets.problem_type, predicted, counts, used, trainer)


def _prepare_mixup(
    config: FinetuneConfig, data: splits.Splits, inverter: Inverter | None
) -> TrainerPlugin | None:
    settings, train = config.mixup, data.train
    if not settings.enabled:
        return None
    if settings.seed is None:
        settings = replace(settings, seed=config.seed)
    evaluated = [data.test] if data.validation is None else [data.validation, data.test]
    rows: dict[str, Any] = {
        "num_labels": len(data.targets.names),
        "label_names": data.targets.names,
        "problem_type": data.targets.problem_type,
        "eval_texts": [text for table in evaluated for text in table.texts],
    }
    if settings.rows_file is not None:
        return OfflineMixup(settings.rows_file, train.texts, train.labels, config=settings, **rows)
    rows |= splits.knowledge(config.data)
    if inverter is not None:
        return InversedMixup(inverter, train.texts, train.labels, config=settings, **rows)
    return InversedMixup.from_pretrained(
        texts=train.texts, labels=train.labels, config=settings, **rows
    )


def tokenized(
    table: LabelledTexts, targets: Targets, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Dataset:
    """The rows of a table as a Trainer takes them.

    Args:
        table: Texts, or pairs of texts, with labels.
        targets: The training labels, which fix the classes.
        tokenizer: The classifier's tokenizer.
        max_length: Longest text, in tokens.
    """
    sides = [list(side) for side in zip(*map(split_sides, table.texts), strict=True)]
    encoded = tokenizer(*sides, truncation=True, max_length=max_length)
    return Dataset.from_dict({**encoded, "label": splits.trainer_labels(targets, table)})


def _committee(mixup: TrainerPlugin | None) -> dict[str, Any]:
    """What labelled the rows, where a committee did."""
    found = mixup.committee_figures() if isinstance(mixup, InversedMixup) else None
    return {} if found is None else {"committee": found}


def _class_counts(targets: Targets) -> np.ndarray | None:
    """Training rows of each class (C,); None where rows have no one class."""
    if targets.problem_type != SINGLE_LABEL:
        return None
    counts: np.ndarray = np.bincount(targets.groups, minlength=len(targets.names))
    return counts


def _used_rows(callbacks: list[Any]) -> list[tuple[MixedExample, int]]:
    """The mixed rows that were used, summed over all processes."""
    mixing = [each for each in callbacks if isinstance(each, MixupCallback)]
    return mixing[0].used_rows() if mixing else []
