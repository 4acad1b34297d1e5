"""Share of generated rows with an intrusion event, as a module of `evaluate`."""

from __future__ import annotations

import datasets
import evaluate

from mixup_hf.intervals import wilson


class IntrusionRate(evaluate.Metric):  # type: ignore[misc]
    """Share of generated rows with an event (of any kind), with its 95 % Wilson interval."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(type(self).__doc__),
            citation="Guo et al. 2019, MixUp as Locally Linear Out-of-Manifold, arXiv 1809.02499.",
            inputs_description="predictions: whether each row had an event, `bool(row.events)`.",
            features=datasets.Features({"predictions": datasets.Value("bool")}),
        )

    def _compute(self, predictions: list[bool]) -> dict[str, float]:
        rate = wilson(sum(predictions), len(predictions))
        return {"intrusion_rate": rate.share, "low": rate.low, "high": rate.high}
