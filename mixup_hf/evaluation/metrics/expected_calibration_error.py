"""Expected calibration error, as a module of `evaluate`."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from mixup_hf.finetuning.metrics import expected_calibration_error


class ExpectedCalibrationError(evaluate.Metric):  # type: ignore[misc]
    """Mean gap between confidence and accuracy over bins of confidence (Guo et al. 2017)."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(type(self).__doc__),
            citation="Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599.",
            inputs_description=(
                "predictions: probabilities (N, C). references: class indices (N). num_bins: bins "
                "of equal width, by default 15."
            ),
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(
        self, predictions: list[list[float]], references: list[int], num_bins: int = 15
    ) -> dict[str, float]:
        gap = expected_calibration_error(np.asarray(predictions), np.asarray(references), num_bins)
        return {"expected_calibration_error": gap}
