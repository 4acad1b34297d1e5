"""The result of one training: metrics, counts, and what was right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import Trainer

from mixup_hf import runtime
from mixup_hf.data.targets import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from mixup_hf.finetuning import splits
from mixup_hf.finetuning.metrics import REPORTED, negative_log_likelihood, row_losses
from mixup_hf.training.callback import MixupCallback
from mixup_hf.types import MixedExample


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
        losses: The negative log-likelihood of each test row (N), where each has one class.
        steps_per_epoch: Optimizer steps per epoch.
    """

    metrics: dict[str, Any]
    used: list[tuple[MixedExample, int]]
    correct: list[bool]
    history: list[dict[str, float]]
    errors: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    steps_per_epoch: int = 1


def counted(
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
        "contrastive_steps": _contrastive_steps(trainer),
        "processes": runtime.world_size(),
        "problem_type": data.targets.problem_type,
        "classes": list(data.targets.names),
    }


def _contrastive_steps(trainer: Trainer) -> int:
    """Optimizer steps before the first of the run."""
    callbacks = trainer.callback_handler.callbacks
    starts = [each.starts for each in callbacks if isinstance(each, MixupCallback)]
    return sum(start.steps for each in starts for start in each)


def learned(problem_type: str, predicted: Any) -> dict[str, float]:
    """Accuracy and loss of the training rows, where they were predicted."""
    if predicted is None or problem_type != SINGLE_LABEL:
        return {}
    outputs, labels = np.asarray(predicted.predictions), np.asarray(predicted.label_ids)
    return {
        "train_accuracy": float((outputs.argmax(axis=-1) == labels).mean()),
        "train_loss": negative_log_likelihood(outputs, labels),
    }


def fitted(
    problem_type: str,
    predicted: Any,
    counts: dict[str, Any],
    used: list[tuple[MixedExample, int]],
    trainer: Trainer,
) -> Fitted:
    """The result of a training, from what was predicted of the test rows and what was counted."""
    measured = predicted.metrics or {}
    outputs, labels = np.asarray(predicted.predictions), np.asarray(predicted.label_ids)
    correct, gaps, losses = np.array([], bool), np.array([]), np.array([])
    if problem_type == REGRESSION:
        gaps = np.abs(outputs.reshape(-1) - labels.reshape(-1))
    elif problem_type == MULTI_LABEL:
        correct = ((outputs > 0) == (labels > 0.5)).all(axis=1)
    else:
        correct = outputs.argmax(axis=-1) == labels
        # The Trainer's own loss may be smoothed, weighted, or have further terms.
        losses = row_losses(outputs, labels)
        measured = measured | {"test_loss": float(losses.mean())}
    epochs = trainer.state.epoch or 1.0
    return Fitted(
        {name: measured[name] for name in REPORTED[problem_type]} | counts,
        used,
        correct.tolist(),
        trainer.state.log_history,
        gaps.tolist(),
        losses.tolist(),
        max(1, round(trainer.state.global_step / epochs)),
    )
