"""TrainingArguments of a fine-tuning run, checked before anything is loaded."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

import torch
from transformers import TrainingArguments

from mixup_hf import errors, runtime
from mixup_hf.config import FinetuneConfig
from mixup_hf.finetuning.metrics import CHOOSES, SMALLER_IS_BETTER
from mixup_hf.inverter.quantization import warn_of_slow_bf16

_DEFAULTS: dict[str, Any] = {"report_to": [], "save_strategy": "no", "logging_steps": 20}


def training_arguments(config: FinetuneConfig, problem_type: str) -> TrainingArguments:
    """The arguments of a run: the user's over this command's defaults.

    With validation rows, every epoch is evaluated and saved, and the best checkpoint is loaded at
    the end, unless `training` decides otherwise. Without them nothing may be evaluated during
    training: the test split is read once, at the end.

    Args:
        config: The run.
        problem_type: Decides which metric chooses the checkpoint.

    Raises:
        InvalidInput: A key of `training` is unknown or has a value that TrainingArguments refuses,
            or asks for an evaluation without validation rows.
    """
    _refuse_unknown(config.training)
    if config.data.has_validation:
        defaults = _DEFAULTS | _choosing(config.training, problem_type)
    else:
        _refuse_evaluation(config.training)
        defaults = _DEFAULTS
    if runtime.processes_started() > 1 and not torch.accelerator.is_available():
        defaults = defaults | {"use_cpu": True}  # else each would train alone
    try:
        arguments = TrainingArguments(
            output_dir=config.output_dir, seed=config.seed, **(defaults | config.training)
        )
    except (TypeError, ValueError) as error:
        raise errors.InvalidInput(
            f"`training` is not accepted by transformers.TrainingArguments: {error}"
        ) from error
    if arguments.bf16:
        warn_of_slow_bf16("training.bf16", arguments.device)
    return arguments


def saves_by_default(config: FinetuneConfig) -> bool:
    """Whether checkpoints are only kept to choose among them, by this command's defaults."""
    return config.data.has_validation and "save_strategy" not in config.training


def _choosing(training: dict[str, Any], problem_type: str) -> dict[str, Any]:
    metric = CHOOSES[problem_type]
    strategy = training.get("eval_strategy", training.get("save_strategy", "epoch"))
    saving = training.get("save_strategy", strategy)
    return {
        "eval_strategy": strategy,
        "save_strategy": saving,
        "save_total_limit": 1,
        "load_best_model_at_end": strategy == saving != "no",
        "metric_for_best_model": metric,
        "greater_is_better": metric not in SMALLER_IS_BETTER,
    }


def _refuse_evaluation(training: dict[str, Any]) -> None:
    asked = {
        name: training[name]
        for name in ("eval_strategy", "load_best_model_at_end", "eval_on_start")
        if training.get(name) not in (None, "no", False)
    }
    if asked:
        raise errors.InvalidInput(
            f"`training` asks for an evaluation ({asked}), but there are no validation rows: the "
            "test split must not choose a checkpoint. Set one of `data.validation_file`, "
            "`validation_split`, `validation_share` or `validation_rows_per_class`."
        )


def _refuse_unknown(training: dict[str, Any]) -> None:
    known = {field.name: field.default for field in fields(TrainingArguments) if field.init}
    for name, value in training.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f" Did you mean {', '.join(close)}?" if close else ""
            raise errors.InvalidInput(
                f"`training.{name}` is not an argument of transformers.TrainingArguments.{hint}"
            )
        if isinstance(known[name], (int, float)) and isinstance(value, str):
            raise errors.bad(f"training.{name}", "be a number, or true or false", value)
