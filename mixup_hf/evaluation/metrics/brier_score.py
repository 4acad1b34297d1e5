"""Brier score of class probabilities, as a module of `evaluate`."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from mixup_hf.finetuning.metrics import brier_score


class BrierScore(evaluate.Metric):  # type: ignore[misc]
    """Mean squared distance (0 to 2) of probabilities to the one-hot labels (Brier 1950)."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(type(self).__doc__),
            citation="Brier 1950, Verification of forecasts expressed in terms of probability.",
            inputs_description="predictions: probabilities (N, C). references: class indices (N).",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        return {"brier_score": brier_score(np.asarray(predictions), np.asarray(references))}
