"""A member that tunes the sentence encoder contrastively on the real rows, as SetFit does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mixup_hf import errors
from mixup_hf.registry import register

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mixup_hf.judging.labels.types import LabelInputs, Learner, Predict, TunesEncoder

MAX_STEPS = 40  # of one tuning; a committee takes four


class SetFitLearner:
    """Contrastive tuning of a copy of the encoder, then logistic regression on its embeddings.

    Tuned once on all rows and once without each of three folds.

    Args:
        texts: The training texts (N).
        values: Their one-hot labels (N, C).
        make_encoder: Makes a new trainable copy of the sentence encoder.
        max_steps: Most steps of one tuning.
        seed: Seed of batches and of dropout.
        balanced: All classes count the same in the regression, whatever their rows.
    """

    max_folds = 3

    def __init__(
        self,
        texts: Sequence[str],
        values: np.ndarray,
        make_encoder: Callable[[], TunesEncoder],
        *,
        max_steps: int = MAX_STEPS,
        seed: int = 0,
        balanced: bool = False,
    ) -> None:
        errors.at_least("max_steps", max_steps, 1)
        self.texts = _readable(texts)
        self.values, self.make_encoder = values, make_encoder
        self.max_steps, self.seed, self.balanced = max_steps, seed, balanced

    def fit(self, rows: np.ndarray) -> Predict:
        """As `Learner.fit`."""
        import torch

        from mixup_hf.data.targets import SINGLE_LABEL
        from mixup_hf.judging.labels.contrastive import embed, tune
        from mixup_hf.judging.labels.heads import fit_head

        texts, values = [self.texts[row] for row in rows], self.values[rows]
        encoder = self.make_encoder()
        tune(encoder, texts, values.argmax(1), max_steps=self.max_steps, seed=self.seed)
        features = embed(encoder, texts).double().numpy()
        head = fit_head(SINGLE_LABEL, features, values, 1.0, balanced=self.balanced)

        def predict(texts: Sequence[str]) -> Tensor:
            embeddings = embed(encoder, _readable(texts))
            return torch.from_numpy(head(embeddings.double().numpy()))

        return predict


def _readable(texts: Sequence[str]) -> list[str]:
    from mixup_hf.data.text_pairs import split_sides

    return ["\n".join(split_sides(text)) for text in texts]


@register("member", "setfit", help="the sentence encoder tuned contrastively on the real rows")
def build(inputs: LabelInputs) -> Learner:
    """Tunes copies of the sentence encoder."""
    inputs.require_single_label("setfit")
    if inputs.tunable_encoder is None:
        raise errors.bad(
            "committee", "name members that fit: there is no sentence encoder to tune", "setfit"
        )
    return SetFitLearner(
        inputs.texts,
        inputs.values,
        inputs.tunable_encoder,
        seed=inputs.seed,
        balanced=inputs.balanced,
    )
