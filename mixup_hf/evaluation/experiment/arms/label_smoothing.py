"""Label smoothing: what soft labels do without a committee and without new rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task, Trained


_SMOOTHING = 0.1


@register("arm", "label_smoothing", help="as oversample, labels smoothed by 0.1")
def label_smoothing(task: Task) -> Trained:
    """Oversampling with the Trainer's own label smoothing (Szegedy et al., arXiv 1512.00567)."""
    from mixup_hf.evaluation.experiment.task import Trained, rewritten

    plugin = rewritten(task, lambda texts: list(texts))
    return Trained(plugin, {"label_smoothing_factor": _SMOOTHING})
