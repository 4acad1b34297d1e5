"""Judges: which class a generated sentence seems to belong to, without knowledge of its parents.

Each module of this folder holds one judge. To add one, write a file that registers a function from
`JudgeInputs` to a `Judge`:

    @register("judge", "constant", help="the same opinion of every sentence")
    def build(inputs: JudgeInputs) -> Judge: ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from mixup_hf import registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mixup_hf.types import Encodes

    LogLikelihood = Callable[[Sequence[str], Sequence[str]], Tensor]


class Judge(Protocol):
    """Estimates which classes sentences belong to."""

    def judge(self, texts: Sequence[str], embeddings: Tensor, parents: np.ndarray) -> Tensor:
        """Class probabilities (n, C), estimated without the parents of each sentence.

        Args:
            texts: The sentences (n).
            embeddings: Their embeddings (n, D).
            parents: Training rows to leave out for each sentence (n, m); -1 leaves out none.
        """
        ...


@dataclass(frozen=True)
class JudgeInputs:
    """Everything a judge can be built from.

    Attributes:
        texts: The training texts (N).
        embeddings: Their embeddings (N, D), from `encoder`.
        targets: Their one-hot labels (N, C).
        encoder: Embeds any text.
        label_names: Names of the classes (C).
        log_likelihood: Mean log-likelihood per token (n, C) of each class name after each text,
            under the inverter's LLM. None where no LLM is loaded.
        seed: Seed of anything drawn.
    """

    texts: Sequence[str]
    embeddings: Tensor
    targets: Tensor
    encoder: Encodes
    label_names: Sequence[str] = ()
    log_likelihood: LogLikelihood | None = None
    seed: int = 0


def build_judge(name: str, inputs: JudgeInputs) -> Judge:
    """Build a registered judge for one training set.

    Args:
        name: A name registered under the kind `judge`.
        inputs: The training set and models.

    Raises:
        InvalidInput: The name is unknown, or the judge cannot work with this training set.
    """
    return cast(Judge, registry.get("judge", name, argument="judges")(inputs))
