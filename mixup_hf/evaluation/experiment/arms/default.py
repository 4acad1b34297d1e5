"""What the package does where nothing is set: the arm that a user gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.finetuning.runner import Attaches


@register("arm", "default", help="what the package does by default, or as `mixup` says")
def default(task: Task) -> Attaches:
    """Mix, label and train as `mixup` of the experiment says, with the package's defaults."""
    from mixup_hf.evaluation.experiment.task import mixed

    return mixed(task, task.mixup)
