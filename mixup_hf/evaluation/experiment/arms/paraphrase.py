"""Paraphrases by the inverter's LLM, asked in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.models import Models
    from mixup_hf.evaluation.experiment.task import Task
    from mixup_hf.finetuning.runner import Attaches

_LONGEST = 32  # words of a text that the LLM is shown
_ASK = "Say the following sentence in other words. Answer with one sentence only.\n\n{}"


@register("arm", "paraphrase", help="paraphrases by the LLM")
def paraphrase(task: Task) -> Attaches:
    """Each generated row is a paraphrase of a training row."""
    from mixup_hf.evaluation.experiment.task import rewritten

    return rewritten(task, lambda texts: paraphrased(texts, task.models, task.seed))


def paraphrased(texts: Sequence[str], models: Models, seed: int) -> list[str]:
    """Ask the LLM to paraphrase each text, or its beginning; a text without an answer stays."""
    begun = [" ".join(text.split()[:_LONGEST]) for text in texts]
    asked = [models.as_question(_ASK.format(text)) for text in begun]
    answers = models.continuations(asked, seed, tokens=32)
    lines = [answer.strip().split("\n")[0].strip(" \"'") for answer in answers]
    return [line or text for line, text in zip(lines, texts, strict=True)]
