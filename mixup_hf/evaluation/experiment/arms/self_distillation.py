"""The committee's labels on the real rows: what it adds without generated text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.finetuning.runner import Attaches


@register("arm", "self_distillation", help="as oversample, the copies with the committee's labels")
def self_distillation(task: Task) -> Attaches:
    """Each real row is seen as often with its own label as with the committee's.

    The committee has seen these rows. It is softened until it is no surer of them than it is right
    on rows it has not seen; its labels would be those of the rows else.
    """
    from mixup_hf.evaluation.experiment.task import rewritten

    committee = task.models.committee(task, task.train.texts)
    labels = committee.label(task.train.texts).labels.double().numpy()
    return rewritten(task, lambda texts: list(texts), labels=labels)
