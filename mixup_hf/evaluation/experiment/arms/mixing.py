"""The methods of the papers: parents mixed, the mix decoded by the inverter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.finetuning.runner import Attaches


def _mixed(task: Task, method: str) -> Attaches:
    """The method as published: its own weights, pairing and interpolation, its parents' labels.

    Where `mixup` sets weights, pairing or interpolation, these are used instead.
    """
    from mixup_hf.evaluation.experiment.config import mixup_with
    from mixup_hf.evaluation.experiment.task import as_published, mixed

    return mixed(task, mixup_with(as_published(task.mixup), {"method": method}))


@register("arm", "inversed_mixup", help="mixed and decoded: inversedMixup, arXiv 2601.21543")
def inversed_mixup(task: Task) -> Attaches:
    """InversedMixup (arXiv 2601.21543)."""
    return _mixed(task, "inversed-mixup")


@register("arm", "smotext", help="mixed and decoded: SMOTExT, arXiv 2505.13434")
def smotext(task: Task) -> Attaches:
    """SMOTExT (arXiv 2505.13434)."""
    return _mixed(task, "smotext")


@register(
    "arm",
    "structure_preserving",
    help="mixed and decoded: structure-preserving mixup, arXiv 2503.02645",
)
def structure_preserving(task: Task) -> Attaches:
    """Structure-preserving mixup (arXiv 2503.02645)."""
    return _mixed(task, "structure-preserving")
