"""A member that asks the inverter's LLM how likely each label's name is after the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mixup_hf.judging.labels.types import LabelInputs, Learner, Predict, ReadsText

_NOTHING = "..."  # the text after which a name is worth what it is worth anywhere


class NameLearner:
    """Likelihoods of names, minus those after no text, sharpened as suits the real rows.

    One number is fitted. An LLM pass is needed per text and class, so the cost grows with C.

    Args:
        llm: The LLM that has been loaded.
        texts: The training texts (N).
        values: Their one-hot labels (N, C).
        names: Names or descriptions of the classes (C).
    """

    max_folds = 5

    def __init__(
        self, llm: ReadsText, texts: Sequence[str], values: np.ndarray, names: Sequence[str]
    ) -> None:
        self.llm, self.values, self.names = llm, values, list(names)
        self._after_nothing = llm.label_log_likelihood([_NOTHING], self.names)
        self.scores = self._score(texts)

    def _score(self, texts: Sequence[str]) -> np.ndarray:
        from mixup_hf.data.text_pairs import split_sides

        read = ["\n".join(split_sides(text)) for text in texts]
        gain = self.llm.label_log_likelihood(read, self.names) - self._after_nothing
        scores: np.ndarray = gain.double().numpy()
        return scores

    def fit(self, rows: np.ndarray) -> Predict:
        """As `Learner.fit`."""
        from math import exp

        import torch
        from scipy.optimize import minimize_scalar
        from scipy.special import log_softmax, softmax

        scores, values = self.scores[rows], self.values[rows]

        def loss(log_scale: float) -> float:
            likelihood = (values * log_softmax(exp(log_scale) * scores, axis=1)).sum()
            return float(log_scale**2 / 8 - likelihood)

        scale = exp(minimize_scalar(loss, bounds=(-5.0, 3.0), method="bounded").x)

        def predict(texts: Sequence[str]) -> Tensor:
            return torch.from_numpy(softmax(scale * self._score(texts), axis=1))

        return predict


@register("member", "label_names", help="how likely the LLM finds each label's name after the text")
def build(inputs: LabelInputs) -> Learner:
    """Likelihoods of the descriptions of classes, or of their names."""
    inputs.require_single_label("label_names")
    names = inputs.descriptions or inputs.label_names or inputs.targets.names
    return NameLearner(inputs.require_llm("label_names"), inputs.texts, inputs.values, names)
