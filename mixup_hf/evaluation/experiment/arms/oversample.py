"""The arm every other one has to beat: the same rows, seen more often."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.finetuning.runner import Attaches


@register("arm", "oversample", help="real rows seen twice: the same budget, nothing generated")
def oversample(task: Task) -> Attaches:
    """Copies of training rows take the place of generated ones."""
    from mixup_hf.evaluation.experiment.task import rewritten

    return rewritten(task, lambda texts: list(texts))
