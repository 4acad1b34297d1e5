"""What tests of the committee share: texts on obvious topics, and models that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tiny import make_encoder
from torch import Tensor
from torch.nn import functional as F

from mixup_hf.data.targets import read_targets
from mixup_hf.inverter.encoder import TunableEncoder
from mixup_hf.judging.labels import LabelInputs, fitting


def noting_fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by the name of a member whenever one is built to be fitted."""
    built: list[str] = []
    build = fitting.build_learner

    def noting(name: str, inputs: LabelInputs) -> Any:
        built.append(name)
        return build(name, inputs)

    monkeypatch.setattr(fitting, "build_learner", noting)
    return built


def noise(text: str, size: int) -> Tensor:
    """A vector that depends on the text alone."""
    seed = sum(place * ord(letter) for place, letter in enumerate(text, 1))
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def topic(text: str) -> int:
    """The class of a text such as "c3 word 7"."""
    return int(text.split()[0].removeprefix("c"))


class TopicEncoder:
    """Embeds texts near the centre of their topic, and counts what it reads."""

    def __init__(self, num_topics: int, spread: float = 0.3) -> None:
        self.centres = torch.eye(max(8, num_topics))
        self.spread, self.read = spread, 0

    def encode(self, texts: Sequence[str]) -> Tensor:
        self.read += len(texts)
        width = len(self.centres)
        rows = [
            (self.centres[topic(text)] if text[0] == "c" else 0) + self.spread * noise(text, width)
            for text in texts
        ]
        return F.normalize(torch.stack(rows), dim=-1)


class TopicReader:
    """An LLM whose states and likelihoods know the topic, in part."""

    def __init__(self, num_topics: int, spread: float = 0.3) -> None:
        self.encoder = TopicEncoder(num_topics, spread)
        self.read = 0

    def hidden_states(self, texts: Sequence[str]) -> Tensor:
        self.read += len(texts)
        states = 5 + self.encoder.encode(texts)  # states of all texts are much alike
        return torch.stack([states, -states], 1)

    def label_log_likelihood(self, texts: Sequence[str], names: Sequence[str]) -> Tensor:
        common = -1.0 - torch.arange(len(names))  # some names are likelier after any text
        known = [
            [0.5 * (text[0] == "c" and topic(text) == column) for column in range(len(names))]
            for text in texts
        ]
        return common + torch.tensor(known)


def topic_texts(sizes: Sequence[int], start: int = 0) -> tuple[list[str], list[int]]:
    """Texts "c<class> word <number>" and their classes; so many of each class."""
    rows = [(label, start + at) for label, size in enumerate(sizes) for at in range(size)]
    return [f"c{label} word {at}" for label, at in rows], [label for label, _ in rows]


def topic_inputs(sizes: Sequence[int], spread: float = 0.3, **changed: Any) -> LabelInputs:
    """A training set with so many rows of each class, and models that can label it."""
    texts, labels = topic_texts(sizes)
    encoder = TopicEncoder(len(sizes), spread)
    tiny = make_encoder()
    given: dict[str, Any] = {
        "texts": texts,
        "embeddings": encoder.encode(texts),
        "targets": read_targets(labels, len(sizes), None),
        "encoder": encoder,
        "llm": TopicReader(len(sizes)),
        "tunable_encoder": lambda: TunableEncoder(tiny),
    }
    return LabelInputs(**(given | changed))


@dataclass
class Opinions:
    labels: Tensor
    votes: dict[str, Tensor]


class FakeCommittee:
    """Labels a text by its letters; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def label(self, texts: Sequence[str]) -> Opinions:
        self.asked += texts
        rows = [torch.Generator().manual_seed(sum(map(ord, text))) for text in texts]
        scores = torch.stack([torch.rand(3, generator=generator) for generator in rows])
        labels = scores / scores.sum(1, keepdim=True)
        return Opinions(labels, {"first": labels, "second": labels.flip(1)})


def committee_of(text: str) -> tuple[float, ...]:
    return tuple(FakeCommittee().label([text]).labels[0].tolist())
