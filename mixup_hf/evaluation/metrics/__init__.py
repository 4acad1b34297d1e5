"""Metrics of this package as modules of Hugging Face's `evaluate`, loaded by path, offline.

`evaluate` loads one metric per script, so there is one script per metric.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from mixup_hf import errors

if TYPE_CHECKING:
    from evaluate import EvaluationModule

METRICS = ("brier_score", "expected_calibration_error", "intrusion_rate", "lambda_recovery")


def load_metric(name: str) -> EvaluationModule:
    """Load a metric of this package, for `compute` or for `evaluate.combine`; works offline.

    Args:
        name: One of `METRICS`.

    Raises:
        ValueError: Another name.
    """
    errors.one_of("name", name, METRICS, "Others are loaded by evaluate.load.")
    import evaluate

    with as_file(files("mixup_hf.evaluation.metrics") / f"{name}.py") as script:
        return evaluate.load(str(script))
