"""SetFit from its own library: the strongest cheap rival at few rows per class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.arms._setfit import SetFitPredicts
    from mixup_hf.evaluation.experiment.task import Task


@register("arm", "setfit", help="SetFit (arXiv 2209.11055), from its library")
def setfit(task: Task) -> SetFitPredicts:
    """SetFit with its library's defaults, and as many steps as the other arms take."""
    from mixup_hf.evaluation.experiment.arms._setfit import train

    return train(task)
