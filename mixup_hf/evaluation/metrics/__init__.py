"""Our metrics as modules of Hugging Face's `evaluate`: a folder each, loaded by path, no network.

A folder holds one script, as `evaluate` wants it, and can be pushed to the Hub as it is.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from mixup_hf import errors

if TYPE_CHECKING:
    from evaluate import EvaluationModule

METRICS = ("brier_score", "expected_calibration_error", "intrusion_rate", "lambda_recovery")


def load_metric(name: str) -> EvaluationModule:
    """A metric of this package, ready for `compute` or for `evaluate.combine`.

    Args:
        name: One of `METRICS`.

    Raises:
        ValueError: Another name.
    """
    errors.one_of("name", name, METRICS, "Others are loaded by evaluate.load.")
    import evaluate

    with as_file(files("mixup_hf.evaluation.metrics") / name) as folder:
        return evaluate.load(str(folder))
