"""A judge that scores class names with the inverter's LLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixup_hf import errors
from mixup_hf.registry import register

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mixup_hf.judging.judges import JudgeInputs, LogLikelihood


class LikelihoodJudge:
    """How likely the inverter's LLM finds each class name after the sentence.

    The score is the name's mean log-likelihood per token minus the same after an empty prompt, so
    that common names are not favored. The LLM was not trained on the labels, so every row is out
    of fold.

    Args:
        log_likelihood: Mean log-likelihood per token (n, C) of each name after each text.
        names: Names of the classes (C).
    """

    def __init__(self, log_likelihood: LogLikelihood, names: Sequence[str]) -> None:
        self.log_likelihood = log_likelihood
        self.names = list(names)
        self._after_nothing: Tensor | None = None

    def judge(self, texts: Sequence[str], embeddings: Tensor, parents: np.ndarray) -> Tensor:
        """As `Judge.judge`."""
        if self._after_nothing is None:
            self._after_nothing = self.log_likelihood(["..."], self.names)
        scores: Tensor = self.log_likelihood(texts, self.names) - self._after_nothing
        return scores.softmax(-1)


@register("judge", "llm", help="how likely the inverter's LLM finds each class name after the text")
def build(inputs: JudgeInputs) -> LikelihoodJudge:
    """A judge that uses the LLM the inverter has already loaded."""
    if inputs.log_likelihood is None:
        raise errors.InvalidInput(
            "`judges` = 'llm' needs an LLM, but no inverter is loaded. Use 'knn' or 'classifier'."
        )
    return LikelihoodJudge(inputs.log_likelihood, inputs.label_names)
