"""A member that is a linear head on the embeddings of the frozen sentence encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.judging.labels.types import LabelInputs, Learner


@register("member", "encoder", help="a linear head on the frozen sentence embedding")
def build(inputs: LabelInputs) -> Learner:
    """Logistic regression (ridge in regression) on embeddings."""
    from mixup_hf.judging.labels.heads import HeadLearner

    return HeadLearner(
        inputs.embeddings.double().numpy(),
        inputs.targets,
        lambda texts: inputs.encoder.encode(texts).double().numpy(),
        inputs.seed,
        balanced=inputs.balanced,
        texts=inputs.texts,
    )
