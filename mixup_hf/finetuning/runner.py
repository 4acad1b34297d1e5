"""A whole fine-tuning run from a config: what `mixup-hf finetune` and its recipe do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    set_seed,
)

from mixup_hf import runtime
from mixup_hf.config import FinetuneConfig
from mixup_hf.data.sources import resolve
from mixup_hf.data.tables import LabelledTexts
from mixup_hf.data.targets import MULTI_LABEL, REGRESSION, Targets, read_targets
from mixup_hf.data.text_pairs import split_sides
from mixup_hf.finetuning import compare, results, splits
from mixup_hf.finetuning.arguments import saves_by_default, training_arguments
from mixup_hf.finetuning.metrics import REPORTED, metrics_of
from mixup_hf.inverter.model import Inverter
from mixup_hf.training.attaching import use_soft_smoother
from mixup_hf.training.callback import MixupCallback
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


@dataclass(frozen=True)
class Fitted:
    """The result of one training.

    Attributes:
        metrics: What is reported of the test rows, and of the training.
        used: The mixed rows that were trained on, and how often.
        correct: Whether each test row (N) was predicted correctly; of several labels, all of them.
            Empty for regression.
        history: What the Trainer logged.
        errors: The absolute error of each test row (N), for regression.
        steps_per_epoch: Optimizer steps per epoch.
    """

    metrics: dict[str, Any]
    used: list[tuple[MixedExample, int]]
    correct: list[bool]
    history: list[dict[str, float]]
    errors: list[float] = field(default_factory=list)
    steps_per_epoch: int = 1


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
    data = splits.read(config)
    training_arguments(config, data.targets.problem_type)  # refused before a model is loaded
    mixup = _prepare_mixup(config, data, inverter)
    if fresh:
        results.clear(output)
    discard = saves_by_default(config)
    saved = output if config.save_model else None
    fitted = _fit(config, data, mixup, save_to=saved, discard=discard)
    metrics = fitted.metrics
    if config.compare:
        baseline = _fit(compare.baseline_of(config, fitted), data, None, discard=discard)
        metrics = metrics | {
            "baseline": baseline.metrics,
            "comparison": compare.compare(fitted, baseline),
        }
    metrics = metrics | {"seconds": round(time.monotonic() - started, 1)}
    if runtime.is_main_process():
        results.write(
            output,
            metrics,
            fitted.history,
            fitted.used,
            data.train.texts,
            data.targets.names,
            data.targets.problem_type,
        )
    return metrics


def fit(
    config: FinetuneConfig,
    train: LabelledTexts,
    test: LabelledTexts,
    names: Sequence[str] | None,
    plugin: Attaches | None,
) -> Fitted:
    """Train on `train` without validation rows, and measure on `test`.

    Args:
        config: Model, training arguments and seed; its data and mixup settings are not used.
        train: Training rows.
        test: Test rows.
        names: The classes in the order of the model's outputs.
        plugin: What is added to the plain Trainer; None for nothing.
    """
    targets = read_targets(train.labels, None, names, config.data.problem_type)
    return _fit(config, splits.Splits(train, None, test, targets), plugin)


def _fit(
    config: FinetuneConfig,
    data: splits.Splits,
    plugin: Attaches | None,
    *,
    save_to: Path | None = None,
    discard: bool = False,
) -> Fitted:
    """Train and measure; `discard` removes the checkpoints that were chosen among."""
    started = time.monotonic()
    source = resolve(config.model, revision=config.model_revision)
    tokenizer = AutoTokenizer.from_pretrained(source.path)
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
        model=_model(str(source.path), data.targets),
        args=args,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        compute_metrics=metrics_of(data.targets.problem_type),
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
    counted = _counted(data, used, trainer) | {
        "seed": config.seed,
        "seconds": round(time.monotonic() - started, 1),
    }
    return _fitted(data.targets.problem_type, predicted, counted, used, trainer)


def _model(path: str, targets: Targets) -> Any:
    names = targets.names
    return AutoModelForSequenceClassification.from_pretrained(
        path,
        num_labels=len(names),
        problem_type=targets.problem_type,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )


def _counted(
    data: splits.Splits, used: list[tuple[MixedExample, int]], trainer: Trainer
) -> dict[str, Any]:
    """What a run is told apart by, beside its test metrics."""
    validated: dict[str, Any] = {}
    if data.validation is not None:
        validated["validation_rows"] = len(data.validation)
    if trainer.state.best_metric is not None:
        name = str(trainer.args.metric_for_best_model).removeprefix("eval_")
        validated[f"best_validation_{name}"] = trainer.state.best_metric
    return validated | {
        "train_rows": len(data.train),
        "test_rows": len(data.test),
        "mixed_rows": len(used),
        "mixed_draws": sum(count for _, count in used),
        "doubtful": sum(bool(row.events) for row, _ in used),
        "steps": trainer.state.global_step,
        "processes": runtime.world_size(),
        "problem_type": data.targets.problem_type,
        "classes": list(data.targets.names),
    }


def _fitted(
    problem_type: str,
    predicted: Any,
    counted: dict[str, Any],
    used: list[tuple[MixedExample, int]],
    trainer: Trainer,
) -> Fitted:
    measured = predicted.metrics or {}
    outputs, labels = np.asarray(predicted.predictions), np.asarray(predicted.label_ids)
    correct, gaps = np.array([], bool), np.array([])
    if problem_type == REGRESSION:
        gaps = np.abs(outputs.reshape(-1) - labels.reshape(-1))
    elif problem_type == MULTI_LABEL:
        correct = ((outputs > 0) == (labels > 0.5)).all(axis=1)
    else:
        correct = outputs.argmax(axis=-1) == labels
    epochs = trainer.state.epoch or 1.0
    return Fitted(
        {name: measured[name] for name in REPORTED[problem_type]} | counted,
        used,
        correct.tolist(),
        trainer.state.log_history,
        gaps.tolist(),
        max(1, round(trainer.state.global_step / epochs)),
    )


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


def _used_rows(callbacks: list[Any]) -> list[tuple[MixedExample, int]]:
    """The mixed rows that were used, summed over all processes."""
    mixing = [each for each in callbacks if isinstance(each, MixupCallback)]
    return mixing[0].used_rows() if mixing else []
