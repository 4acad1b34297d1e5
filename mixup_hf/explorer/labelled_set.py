"""The user's labelled texts, and everything that is fitted on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.data.tables import LabelledTexts
from mixup_hf.data.targets import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from mixup_hf.data.text_pairs import are_pairs, without_blanks
from mixup_hf.judging.judges import Judge, JudgeInputs, build_judge
from mixup_hf.runtime import counter_rng
from mixup_hf.training.augmentation import Written, written_record
from mixup_hf.training.inversed import InversedMixup
from mixup_hf.training.regeneration import run_record
from mixup_hf.types import MixedExample

_PAIRS = 17  # identifies this random stream
_TRIES = 50


@dataclass(frozen=True)
class Votes:
    """What judges and committee say about n texts.

    Attributes:
        judges: Each judge's class probabilities (n, C), by its name.
        members: Those of each member of the committee.
        together: The label that the committee gives (n, C); None where it has not been asked.
    """

    judges: dict[str, Tensor] = field(default_factory=dict)
    members: dict[str, Tensor] = field(default_factory=dict)
    together: Tensor | None = None


class LabelledSet:
    """A labelled data set: its texts, its classes, and who votes on other texts.

    Args:
        mixup: The plugin that generates rows of it.
        table: Its rows, as they stand in the source.
        data: Where they are from: see `regeneration.run_record`.

    Attributes:
        committee_ready: Whether the committee has been fitted, so that a vote takes no minute.

    Raises:
        InvalidInput: The rows are pairs of texts.
    """

    def __init__(self, mixup: InversedMixup, table: LabelledTexts, data: dict[str, Any]) -> None:
        if are_pairs(mixup.texts):
            raise errors.InvalidInput(
                "The explorer shows single texts, but the rows are pairs of texts. "
                "`mixup-hf augment` generates pairs."
            )
        self.mixup, self.table, self.data = mixup, table, data
        self.committee_ready = False
        self._draws = 0

    @property
    def texts(self) -> list[str]:
        """The texts (N)."""
        return self.mixup.texts

    @property
    def names(self) -> list[str]:
        """The classes (C)."""
        return self.mixup.label_names

    @property
    def problem_type(self) -> str:
        """As transformers names it."""
        return self.mixup.problem_type

    @property
    def has_committee(self) -> bool:
        """Whether a committee labels generated rows."""
        return self.mixup.chosen.label_source != "parents"

    @cached_property
    def embeddings(self) -> Tensor:
        """Embeddings of the texts (N, D) by the frozen encoder."""
        return self.mixup.encoder.encode(self.texts)

    def words_of(self, label: Sequence[float] | Tensor) -> str:
        """A label (C,) in words: its classes, or its number."""
        values = [float(value) for value in label]
        if self.problem_type == REGRESSION:
            return f"{values[0]:.2f}"
        if self.problem_type == MULTI_LABEL:
            held = [name for name, value in zip(self.names, values, strict=True) if value >= 0.5]
            return ", ".join(held) or "no class"
        return self.names[max(range(len(values)), key=values.__getitem__)]

    def pair(self, number: int) -> tuple[str, str]:
        """Two texts with different labels if there are such, another two for each number."""
        rng = counter_rng(self.mixup.seed, _PAIRS, number)
        targets = self.mixup.targets
        for _ in range(_TRIES):
            first, second = rng.choice(len(self.texts), size=2, replace=False).tolist()
            if not torch.equal(targets[first], targets[second]):
                break
        return self.texts[first], self.texts[second]

    def judge(self, texts: Sequence[str]) -> Votes:
        """What the judges say; nothing where rows do not have one of several classes each."""
        if self.problem_type != SINGLE_LABEL:
            return Votes()
        read = [without_blanks(text) for text in texts]
        embedded = self.mixup.encoder.encode(read)
        nobody = np.full((len(read), 1), -1)  # no training row is left out
        return Votes({name: each.judge(read, embedded, nobody) for name, each in self._judges})

    def vote(self, texts: Sequence[str]) -> Votes:
        """What judges and committee say; the first call fits the committee."""
        judged = self.judge(texts)
        committee = self.mixup.committee
        if committee is None:
            return judged
        found = committee.label([without_blanks(text) for text in texts])
        self.committee_ready = True
        return Votes(judged.judges, dict(found.votes), found.labels)

    def generate(self, count: int) -> list[MixedExample]:
        """Generate and label rows, other ones at every call; the first fits the committee."""
        errors.in_range("rows", count, 1, 1000)
        rows = self.mixup.generate(count, epoch=self._draws)
        self._draws += 1
        self.committee_ready = self.has_committee
        return rows

    def written(self) -> dict[str, Any]:
        """Which columns exported rows have: see `augmentation.written_record`."""
        return written_record(Written(), self.table, self.mixup)

    def run(self, count: int) -> dict[str, Any]:
        """Everything that rows generated `count` at a time depend on: see `run_record`."""
        return run_record(self.data, self.table, self.mixup, count, self.written())

    @cached_property
    def _judges(self) -> list[tuple[str, Judge]]:
        inputs = JudgeInputs(
            self.texts,
            self.embeddings,
            self.mixup.targets,
            self.mixup.encoder,
            self.names,
            self.mixup.inverter.label_log_likelihood,
            self.mixup.seed,
        )
        return [(name, build_judge(name, inputs)) for name in self.mixup.config.judges]
