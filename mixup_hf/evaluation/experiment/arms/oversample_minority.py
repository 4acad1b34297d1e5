"""Oversampling of the rarer classes: what SMOTE must beat on imbalanced rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.finetuning.runner import Attaches


_CHOOSING = 9  # what this stream of random numbers is for; part of its key


@register(
    "arm", "oversample_minority", help="copies of the rarer classes' rows, until all are equal"
)
def oversample_minority(task: Task) -> Attaches:
    """Copies are drawn so that real rows and copies together have as many rows of each class."""
    import numpy as np

    from mixup_hf.data.targets import label_indices
    from mixup_hf.evaluation.experiment.task import rewritten
    from mixup_hf.mixing.balance import lacking
    from mixup_hf.runtime import counter_rng

    classes = np.asarray(label_indices(task.train.labels, task.names))
    sizes = np.bincount(classes, minlength=len(task.names))
    # Half of a batch is real; the other half makes up for what its classes lack.
    weights = (lacking(sizes, 0.5) / np.maximum(sizes, 1))[classes]
    drawn = counter_rng(task.seed, _CHOOSING).choice(len(classes), size=task.rows, p=weights)
    return rewritten(task, lambda texts: list(texts), parents=drawn.tolist())
