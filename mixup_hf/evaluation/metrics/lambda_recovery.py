"""How well decoded sentences follow the requested ratio, as a module of `evaluate`."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from mixup_hf.evaluation.ratio_recovery import lam_recovery


class LambdaRecovery(evaluate.Metric):  # type: ignore[misc]
    """Recovered ratios against requested ones: slope and R2 of the line, Spearman correlation."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(type(self).__doc__),
            citation="inversedMixup, arXiv 2601.21543.",
            inputs_description=(
                "predictions: ratios recovered from decoded sentences (N), as `recovered_lam` "
                "finds them. references: requested ratios (N)."
            ),
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "references": datasets.Value("float64"),
                }
            ),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return lam_recovery(np.asarray(references), np.asarray(predictions))
