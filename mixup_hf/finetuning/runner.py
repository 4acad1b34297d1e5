"""A whole fine-tuning run from a config: what `mixup-hf finetune` and its recipe do."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from mixup_hf import runtime
from mixup_hf.config import FinetuneConfig
from mixup_hf.data.rows import mixed_json
from mixup_hf.data.sources import resolve
from mixup_hf.data.tables import LabelledTexts, draw_shots, read_splits
from mixup_hf.data.targets import class_indices, label_indices
from mixup_hf.data.text_pairs import split_sides
from mixup_hf.finetuning.metrics import brier_score, expected_calibration_error
from mixup_hf.inverter.model import Inverter
from mixup_hf.training.callback import MixupCallback
from mixup_hf.training.inversed import InversedMixup
from mixup_hf.training.offline import OfflineMixup
from mixup_hf.training.plugin import TrainerPlugin
from mixup_hf.types import MixedExample

_REPORTED = (
    "test_accuracy",
    "test_macro_f1",
    "test_minority_recall",
    "test_loss",
    "test_ece",
    "test_brier",
)
_DEFAULTS: dict[str, Any] = {"report_to": [], "save_strategy": "no", "logging_steps": 20}


class Attaches(Protocol):
    """Anything that a Trainer is given beside model and data: a `TrainerPlugin`, for one."""

    def trainer_kwargs(
        self, tokenizer: PreTrainedTokenizerBase, *, max_length: int | None = None
    ) -> dict[str, Any]:
        """Keyword arguments for `Trainer(...)`."""
        ...


@dataclass(frozen=True)
class Fitted:
    """A classifier that was trained and measured.

    Attributes:
        metrics: Those of the test split, and what tells the run apart.
        used: The mixed rows that were trained on, and how often.
        correct: Whether each test row was classified rightly (N).
        history: What the Trainer logged.
    """

    metrics: dict[str, Any]
    used: list[tuple[MixedExample, int]]
    correct: list[bool]
    history: list[dict[str, float]]


def finetune(config: FinetuneConfig, inverter: Inverter | None = None) -> dict[str, Any]:
    """Fine-tune a classifier, with mixed rows or without, and measure it on the test split.

    Writes `metrics.json`, `history.json` and, for a run that mixes, `mixed.jsonl` with every
    sentence trained on.

    Args:
        config: The run.
        inverter: One that is loaded already, for many runs; the config's aligner is then not.

    Returns:
        The content of `metrics.json`: `test_accuracy`, `test_macro_f1`, `test_ece`, `train_rows`,
        `mixed_rows`, `seconds` and what tells the run apart.
    """
    started = time.monotonic()
    train, test = read_splits(config.data)
    if config.data.shots is not None:
        train = draw_shots(train, config.data.shots, config.seed)
    _, names = class_indices(train.labels, None, None)
    mixup = _prepare_mixup(config, train, test, names, inverter)
    fitted = fit(config, train, test, names, mixup)
    metrics = fitted.metrics | {"seconds": round(time.monotonic() - started, 1)}
    if runtime.is_main_process():
        output = Path(config.output_dir)
        _write(output, metrics, fitted.used, train, names)
        (output / "history.json").write_text(json.dumps(fitted.history) + "\n")
    return metrics


def fit(
    config: FinetuneConfig,
    train: LabelledTexts,
    test: LabelledTexts,
    names: list[str],
    plugin: Attaches | None,
) -> Fitted:
    """Train a classifier on `train` and measure it on `test`.

    Args:
        config: Model, training arguments and seed; its data and its mixup are not looked at.
        train: Training rows.
        test: Test rows.
        names: The classes.
        plugin: What is added to the plain Trainer; None for nothing.
    """
    started = time.monotonic()
    source = resolve(config.model, revision=config.model_revision)
    tokenizer = AutoTokenizer.from_pretrained(source.path)
    args = TrainingArguments(
        output_dir=config.output_dir, seed=config.seed, **(_DEFAULTS | config.training)
    )
    # The lines that a script of one's own gains: a plugin, and its keyword arguments.
    max_length = config.data.max_length
    kwargs: dict[str, Any] = {"data_collator": DataCollatorWithPadding(tokenizer)}
    if plugin is not None:
        kwargs |= plugin.trainer_kwargs(tokenizer, max_length=max_length)

    set_seed(config.seed)  # the head is drawn here: the same one with and without mixup
    model = AutoModelForSequenceClassification.from_pretrained(
        source.path,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=_tokenized(train, names, tokenizer, max_length),
        eval_dataset=_tokenized(test, names, tokenizer, max_length),
        processing_class=tokenizer,
        compute_metrics=_metrics,
        **kwargs,
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    predicted = trainer.predict(trainer.eval_dataset, metric_key_prefix="test")  # type: ignore[arg-type]
    used = _used_rows(kwargs.get("callbacks", []))
    measured = predicted.metrics or {}
    metrics = {name: measured[name] for name in _REPORTED} | {
        "train_rows": len(train),
        "test_rows": len(test),
        "mixed_rows": len(used),
        "mixed_draws": sum(count for _, count in used),
        "doubtful": sum(bool(row.events) for row, _ in used),
        "steps": trainer.state.global_step,
        "processes": runtime.world_size(),
        "seed": config.seed,
        "classes": names,
        "seconds": round(time.monotonic() - started, 1),
    }
    labels = np.asarray(predicted.label_ids)
    correct = np.argmax(predicted.predictions, axis=-1) == labels
    return Fitted(metrics, used, correct.tolist(), trainer.state.log_history)


def _prepare_mixup(
    config: FinetuneConfig,
    train: LabelledTexts,
    test: LabelledTexts,
    names: list[str],
    inverter: Inverter | None,
) -> TrainerPlugin | None:
    settings = config.mixup
    if not settings.enabled:
        return None
    if settings.seed is None:
        settings = replace(settings, seed=config.seed)
    rows: dict[str, Any] = {
        "num_labels": len(names),
        "label_names": names,
        "eval_texts": test.texts,
    }
    if settings.rows_file is not None:
        return OfflineMixup(settings.rows_file, train.texts, train.labels, config=settings, **rows)
    if inverter is not None:
        return InversedMixup(inverter, train.texts, train.labels, config=settings, **rows)
    fields = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    aligner = fields.pop("aligner")
    return InversedMixup.from_pretrained(aligner, train.texts, train.labels, **rows, **fields)


def _tokenized(
    table: LabelledTexts, names: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Dataset:
    labels = label_indices(table.labels, names)
    sides = [list(side) for side in zip(*map(split_sides, table.texts), strict=True)]
    encoded = tokenizer(*sides, truncation=True, max_length=max_length)
    return Dataset.from_dict({**encoded, "label": labels})


def _metrics(prediction: Any) -> dict[str, float]:
    logits, labels = prediction.predictions, prediction.label_ids
    chosen, probabilities = np.argmax(logits, axis=-1), softmax(logits, axis=-1)
    return {
        "ece": expected_calibration_error(probabilities, labels),
        "brier": brier_score(probabilities, labels),
        "accuracy": float(accuracy_score(labels, chosen)),
        "macro_f1": float(f1_score(labels, chosen, average="macro")),
        "minority_recall": _minority_recall(labels, chosen),
    }


def _minority_recall(labels: np.ndarray, chosen: np.ndarray) -> float:
    """Recall of the rarest class; of classes equally rare, the worst."""
    present, counts = np.unique(labels, return_counts=True)
    rarest = present[counts == counts.min()]
    return float(min((chosen[labels == each] == each).mean() for each in rarest))


def _used_rows(callbacks: list[Any]) -> list[tuple[MixedExample, int]]:
    """Rows used on this process; with several, each counts its own, and they are added up."""
    mixing = [each for each in callbacks if isinstance(each, MixupCallback)]
    return mixing[0].used_rows() if mixing else []


def _write(
    output: Path,
    metrics: dict[str, Any],
    used: list[tuple[MixedExample, int]],
    train: LabelledTexts,
    names: list[str],
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    if not used:
        return
    with (output / "mixed.jsonl").open("w", encoding="utf-8") as stream:
        for row, count in used:
            line = mixed_json(row, train.texts, names) | {"times_used": count}
            stream.write(json.dumps(line) + "\n")
