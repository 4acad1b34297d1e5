"""A baseline beside the result: the same steps on real rows alone, compared row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixup_hf import errors
from mixup_hf.config import FinetuneConfig
from mixup_hf.finetuning.metrics import REPORTED
from mixup_hf.finetuning.results import BASELINE
from mixup_hf.intervals import bootstrap_interval, discordant_p, mean_over

if TYPE_CHECKING:
    from mixup_hf.finetuning.outcome import Fitted

_BATCH = "per_device_train_batch_size"


def check(config: FinetuneConfig) -> None:
    """Raise `InvalidInput` where there is nothing to compare."""
    if config.compare and not config.mixup.enabled:
        raise errors.InvalidInput(
            "`compare` trains a baseline without mixing beside the run, but `mixup.enabled` is "
            "false: both would be the same. Leave one of them out."
        )


def baseline_of(config: FinetuneConfig, mixed: Fitted) -> FinetuneConfig:
    """The baseline of a run that mixed.

    It has the same seed, head, number of optimizer steps (contrastive ones before the run
    included) and rows per step. Its steps hold real rows only, so it sees each real row more often:
    twice, where half of a batch is mixed.

    Args:
        config: The run.
        mixed: Its result.
    """
    training = {k: v for k, v in config.training.items() if k != "resume_from_checkpoint"}
    batch = int(training.get(_BATCH, 8))
    training[_BATCH] = round(batch / (1 - config.mixup.mix_ratio))
    steps = mixed.metrics["steps"]
    training["max_steps"] = steps + mixed.metrics["contrastive_steps"]
    longer = training["max_steps"] / max(steps, 1)
    if config.data.has_validation:  # as many choices among checkpoints, after the same steps
        evaluates = training.get("eval_strategy", training.get("save_strategy", "epoch"))
        saves = training.get("save_strategy", evaluates)
        for name, strategy in (("eval", evaluates), ("save", saves)):
            if strategy == "epoch":
                training[f"{name}_strategy"] = "steps"
                training[f"{name}_steps"] = math.ceil(longer * mixed.steps_per_epoch)
    folder = str(Path(config.output_dir) / BASELINE)
    return replace(config, output_dir=folder, training=training)


def compare(mixed: Fitted, baseline: Fitted) -> dict[str, Any]:
    """Differences on the test rows, and a paired test.

    Classification: exact McNemar test on which rows are predicted correctly. Regression: Wilcoxon
    signed-rank test on absolute errors. One seed; the test covers the choice of test rows only.

    Returns:
        `metrics`, `test`, `p`, and the numbers of rows that only one of the two got right. Where
        each row has one class, the differences of `test_accuracy` and `test_loss` have 95 % paired
        bootstrap intervals `low` and `high`.
    """
    problem_type = mixed.metrics["problem_type"]
    rows = {
        name: {
            "mixup": mixed.metrics[name],
            "baseline": baseline.metrics[name],
            "difference": mixed.metrics[name] - baseline.metrics[name],
        }
        for name in REPORTED[problem_type]
    }
    if mixed.errors:
        p = wilcoxon_p(mixed.errors, baseline.errors)
        return {"metrics": rows, "test": "wilcoxon", "p": p}
    first, second = np.array(mixed.correct), np.array(baseline.correct)
    if mixed.losses:
        loss = np.array(mixed.losses) - np.array(baseline.losses)
        for name, gaps in (("test_accuracy", first.astype(float) - second), ("test_loss", loss)):
            around = bootstrap_interval(mean_over(gaps), len(gaps))
            rows[name] |= {"low": around.low, "high": around.high}
    only_mixup, only_baseline = int((first & ~second).sum()), int((second & ~first).sum())
    return {
        "metrics": rows,
        "test": "mcnemar",
        "p": discordant_p(only_mixup, only_baseline),
        "only_mixup_correct": only_mixup,
        "only_baseline_correct": only_baseline,
    }


def wilcoxon_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on paired values."""
    from scipy.stats import wilcoxon

    p = float(wilcoxon(first, second).pvalue) if list(first) != list(second) else 1.0
    return 1.0 if math.isnan(p) else p
