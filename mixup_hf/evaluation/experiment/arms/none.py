"""The arm without augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task


@register("arm", "none", help="real rows only")
def none(task: Task) -> None:
    """The plain Trainer: each batch holds real rows only, half as many as in the other arms."""
