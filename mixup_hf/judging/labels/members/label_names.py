"""A member that asks the inverter's LLM how likely each label's name is after the text.

It knows what class names mean, which no other member does. Accuracy and negative log-likelihood on
250 test rows with 10 rows per class (SmolLM2-135M-Instruct, mean of two seeds; a script not kept):

| members | SST-2 | TREC | BBC headlines |
| --- | --- | --- | --- |
| label_names | 0.686, 0.61 | 0.278, 1.72 | 0.540, 1.13 |
| encoder, llm | 0.620, 0.67 | 0.678, 0.83 | 0.762, 0.72 |
| encoder, llm, label_names | 0.660, 0.61 | 0.696, 0.79 | 0.778, 0.67 |

A prompt that lists the classes, or calls them great and terrible, was no better. Where names are
codes, `label_descriptions` should say what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mixup_hf.judging.labels.types import LabelInputs, Learner, Predict, ReadsText


class NameLearner:
    """Likelihoods of names against their means over the real texts, sharpened as suits the rows.

    One number is fitted, so few rows show whether the names mean anything.

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
        self.scores = self._score(texts)

    def _score(self, texts: Sequence[str]) -> np.ndarray:
        from mixup_hf.data.text_pairs import split_sides

        read = ["\n".join(split_sides(text)) for text in texts]
        scores: np.ndarray = self.llm.label_log_likelihood(read, self.names).double().numpy()
        return scores

    def fit(self, rows: np.ndarray) -> Predict:
        """As `Learner.fit`."""
        from math import exp

        import torch
        from scipy.optimize import minimize_scalar
        from scipy.special import log_softmax, softmax

        # What a name is worth after any text; of a class that is more frequent, no more.
        values = self.values[rows]
        share = values / values.sum(0).clip(1)
        usual = (share / share.sum()).sum(1) @ self.scores[rows]
        scores = self.scores[rows] - usual

        def loss(log_scale: float) -> float:
            likelihood = (values * log_softmax(exp(log_scale) * scores, axis=1)).sum()
            return float(log_scale**2 / 8 - likelihood)

        scale = exp(minimize_scalar(loss, bounds=(-5.0, 3.0), method="bounded").x)

        def predict(texts: Sequence[str]) -> Tensor:
            return torch.from_numpy(softmax(scale * (self._score(texts) - usual), axis=1))

        return predict


@register("member", "label_names", help="how likely the LLM finds each label's name after the text")
def build(inputs: LabelInputs) -> Learner:
    """Likelihoods of the descriptions of classes, or of their names."""
    inputs.require_single_label("label_names")
    names = inputs.descriptions or inputs.label_names or inputs.targets.names
    return NameLearner(inputs.require_llm("label_names"), inputs.texts, inputs.values, names)
