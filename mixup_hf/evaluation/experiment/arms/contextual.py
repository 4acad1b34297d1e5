"""Contextual word replacement (Kobayashi, arXiv 1805.06201), with the inverter's LLM.

The paper asks a masked language model, which sees both sides of a word. A causal LLM is asked for
the next word, so it sees only what stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.models import Models
    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.finetuning.runner import Attaches

_CHANGED = 0.1  # share of words
_CONTEXT = 32  # words before the replaced one that the LLM reads


@register("arm", "contextual", help="a tenth of the words replaced by the LLM, in context")
def contextual(task: Task) -> Attaches:
    """Each generated row is a training row with some words replaced."""
    from mixup_hf.evaluation.experiment.task import rewritten

    return rewritten(task, lambda texts: replaced(texts, task.models, task.seed))


def replaced(texts: Sequence[str], models: Models, seed: int) -> list[str]:
    """Replace a tenth of the words, at least one, by what the LLM predicts in their place."""
    from mixup_hf.runtime import counter_rng

    words = [text.split() for text in texts]
    places = [
        (row, place)
        for row, each in enumerate(words)
        for place in _drawn_places(len(each), counter_rng(seed, row))
    ]
    beginnings = [" ".join(words[row][max(0, place - _CONTEXT) : place]) for row, place in places]
    found = models.continuations(beginnings, seed, tokens=4)
    changed = [list(each) for each in words]
    for (row, place), text in zip(places, found, strict=True):
        if text.split():
            changed[row][place] = text.split()[0]
    return [" ".join(each) for each in changed]


def _drawn_places(length: int, rng: np.random.Generator) -> list[int]:
    free = np.arange(1, length) if length > 1 else np.array([0])  # nothing precedes the first word
    count = max(1, round(_CHANGED * length))
    places: list[int] = rng.choice(free, size=min(count, len(free)), replace=False).tolist()
    return places
