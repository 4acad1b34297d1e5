"""A member that is a linear head on a hidden layer of the inverter's own LLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    import numpy as np

    from mixup_hf.judging.labels.types import LabelInputs, Learner


@register("member", "llm", help="a linear head on hidden states of the inverter's LLM")
def build(inputs: LabelInputs) -> Learner:
    """Logistic regression (ridge in regression) on states, each centred and of unit length.

    Layers and template are those of `mixup_hf.inverter.states`.
    """
    import numpy as np

    from mixup_hf.judging.labels.heads import HeadLearner

    llm = inputs.require_llm("llm")

    def read(texts: Sequence[str]) -> np.ndarray:
        states: np.ndarray = llm.hidden_states(texts).double().numpy()
        return states

    states = read(inputs.texts)  # (N, S, H)
    mean = states.mean(0)

    def scaled(states: np.ndarray) -> np.ndarray:
        # States of all texts share most of their direction: what tells them apart is the rest.
        away = states - mean
        length = np.linalg.norm(away, axis=2, keepdims=True)
        unit = away / np.maximum(length, 1e-6)
        side_by_side: np.ndarray = unit.reshape(len(unit), -1)
        return side_by_side

    return HeadLearner(
        scaled(states),
        inputs.targets,
        lambda texts: scaled(read(texts)),
        inputs.seed,
        balanced=inputs.balanced,
        texts=inputs.texts,
    )
