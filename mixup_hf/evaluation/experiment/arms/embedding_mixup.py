"""Mixup inside the classifier: what a decoded sentence must beat to be worth its cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.finetuning.runner import Attaches


@register("arm", "embedding_mixup", help="mixup of sentence representations, nothing decoded")
def embedding_mixup(task: Task) -> Attaches:
    """Mix what the classification head reads (Guo et al., arXiv 1905.08941)."""
    from mixup_hf.evaluation.experiment.arms._embedding_mixup import EmbeddingMixup

    return EmbeddingMixup(task.names, seed=task.seed)
