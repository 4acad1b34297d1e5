"""What a committee is built from and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from torch import Tensor, nn

from mixup_hf import errors
from mixup_hf.data.targets import SINGLE_LABEL, Targets
from mixup_hf.types import Encodes

# Predictions (n, C) for n texts: class probabilities, one independent probability per class
# (multi-label), or numbers (regression).
Predict: TypeAlias = Callable[[Sequence[str]], Tensor]


class ReadsText(Protocol):
    """An LLM that has been loaded, such as `Inverter`."""

    def hidden_states(self, texts: Sequence[str]) -> Tensor:
        """S states of each text (n, S, H)."""
        ...

    def label_log_likelihood(self, texts: Sequence[str], names: Sequence[str]) -> Tensor:
        """Mean log-likelihood per token of each name after each text (n, C)."""
        ...


class Tunes(Protocol):
    """A model that embeds texts and may be trained to."""

    @property
    def model(self) -> nn.Module:
        """The model; parameters that require no gradient stay as they are."""
        ...

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embed n texts as (n, D), with gradients."""
        ...


class TunesEncoder(Tunes, Protocol):
    """A sentence encoder that may be trained, such as `TunableEncoder`."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed n texts as (n, D), float32, on the CPU, without gradients."""
        ...


@dataclass(frozen=True)
class LabelInputs:
    """Everything a committee can be fitted on.

    Attributes:
        texts: The training texts (N).
        embeddings: Their embeddings (N, D), from `encoder`.
        targets: Their labels.
        encoder: Embeds any text.
        label_names: Names of the classes (C). Default: those of the targets.
        descriptions: A readable text for each class (C). Default: the names.
        llm: Needed by the members `llm` and `label_names`.
        tunable_encoder: Makes a new trainable copy of the sentence encoder; needed by `setfit`.
        seed: Seed of folds and of everything drawn.
        balanced: Where texts have one class each, all classes count the same, whatever their rows.
    """

    texts: Sequence[str]
    embeddings: Tensor
    targets: Targets
    encoder: Encodes
    label_names: Sequence[str] = ()
    descriptions: Sequence[str] = ()
    llm: ReadsText | None = None
    tunable_encoder: Callable[[], TunesEncoder] | None = None
    seed: int = 0
    balanced: bool = False

    def __post_init__(self) -> None:
        """Check that there is one label and one embedding for each text."""
        rows = {"embeddings": len(self.embeddings), "targets": len(self.targets.values)}
        for name, count in rows.items():
            if count != len(self.texts):
                raise errors.bad(name, f"hold one row for each of {len(self.texts)} texts", count)

    @property
    def values(self) -> np.ndarray:
        """The labels as numbers (N, C), float64."""
        values: np.ndarray = self.targets.values.double().numpy()
        return values

    def require_llm(self, member: str) -> ReadsText:
        """The LLM.

        Raises:
            InvalidInput: There is none.
        """
        if self.llm is None:
            raise errors.bad(
                "committee", "name members that need no LLM where none is loaded", member
            )
        return self.llm

    def require_single_label(self, member: str) -> None:
        """Raise `InvalidInput` unless each text belongs to exactly one class."""
        if self.targets.problem_type != SINGLE_LABEL:
            raise errors.bad(
                "committee",
                f"name members that know what to do with {self.targets.problem_type}",
                member,
                "Use 'encoder', 'llm' or 'knn'.",
            )


class Learner(Protocol):
    """A kind of member that can be fitted on any subset of the training rows."""

    @property
    def max_folds(self) -> int:
        """Largest number of folds for predictions on rows it has not seen."""
        ...

    def fit(self, rows: np.ndarray) -> Predict:
        """Fit on these training rows (n) and return what predicts the labels of texts.

        A class may have no row among them.
        """
        ...


@dataclass(frozen=True)
class Member:
    """A member of a committee, fitted.

    Attributes:
        predict: Predictions (n, C) for texts.
        held_out: Predictions (N, C) for the training rows, none made by a model that was trained
            on the row. None where there are none: such a member has a fixed weight.
    """

    predict: Predict
    held_out: Tensor | None = None


@dataclass(frozen=True)
class Labelled:
    """What a committee says about n texts.

    Attributes:
        labels: Soft labels (n, C), float32.
        votes: Each member's own predictions (n, C), float32.
    """

    labels: Tensor
    votes: dict[str, Tensor]
