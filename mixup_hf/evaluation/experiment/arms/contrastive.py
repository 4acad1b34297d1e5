"""A contrastive term on the real rows: what it adds without generated text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.finetuning.runner import Attaches


_WEIGHT = 2.0


@register("arm", "contrastive", help="as oversample, with a contrastive term in the loss")
def contrastive(task: Task) -> Attaches:
    """Oversampling, and embeddings drawn together or apart by their labels."""
    from mixup_hf.evaluation.experiment.task import rewritten

    return rewritten(
        task,
        lambda texts: list(texts),
        contrastive_weight=_WEIGHT,
        contrastive_rows="all",  # the copies, too
    )
