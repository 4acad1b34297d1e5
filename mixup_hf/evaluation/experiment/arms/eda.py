"""Easy data augmentation (Wei and Zou, arXiv 1901.11196).

Without synonym replacement and insertion, which need a thesaurus to be downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.finetuning.runner import Attaches

_CHANGED = 0.1  # share of words: EDA's alpha


@register("arm", "eda", help="random swap or deletion of words (EDA)")
def eda(task: Task) -> Attaches:
    """Each generated row is a training row with some words swapped or deleted."""
    from mixup_hf.evaluation.experiment.task import rewritten

    return rewritten(task, lambda texts: edited(texts, task.seed))


def edited(texts: Sequence[str], seed: int) -> list[str]:
    """Swap some words of each text, or delete some: which of the two is drawn per text."""
    from mixup_hf.runtime import counter_rng

    return [_edited(text, counter_rng(seed, row)) for row, text in enumerate(texts)]


def _edited(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    changes = max(1, round(_CHANGED * len(words)))
    if len(words) < 2:
        return text
    if rng.random() < 0.5:
        for _ in range(changes):
            one, two = rng.choice(len(words), size=2, replace=False)
            words[one], words[two] = words[two], words[one]
        return " ".join(words)
    deleted = set(rng.choice(len(words), size=min(changes, len(words) - 1), replace=False))
    return " ".join(word for at, word in enumerate(words) if at not in deleted)
