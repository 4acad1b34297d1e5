"""The methods of the papers: parents mixed, the mix decoded by the inverter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.finetuning.runner import Attaches


def _arm(method: str) -> Callable[[Task], Attaches]:
    """The method's own weights, pairing and interpolation, where `mixup` does not set them."""

    def arm(task: Task) -> Attaches:
        from mixup_hf.evaluation.experiment.config import mixup_with
        from mixup_hf.evaluation.experiment.task import mixed

        return mixed(task, mixup_with(task.mixup, {"method": method}))

    return arm


for _name, _method, _paper in (
    ("inversed_mixup", "inversed-mixup", "inversedMixup, arXiv 2601.21543"),
    ("smotext", "smotext", "SMOTExT, arXiv 2505.13434"),
    (
        "structure_preserving",
        "structure-preserving",
        "structure-preserving mixup, arXiv 2503.02645",
    ),
):
    register("arm", _name, help=f"mixed and decoded: {_paper}")(_arm(_method))
