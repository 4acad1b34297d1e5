"""Large training sets: what is fitted on a sample, and what stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from judging_data import CLASSES, ROW, blobs
from labelling import topic_inputs
from torch import Tensor

from mixup_hf.judging import build_gate
from mixup_hf.judging.sampling import SampledJudge, sample_of
from mixup_hf.mixing.neighbors import NOBODY
from mixup_hf.training import committee


def test_small_sets_are_taken_whole() -> None:
    assert sample_of(np.zeros(20), 0, "It is fitted", most=20).tolist() == list(range(20))


def test_a_sample_has_every_class_as_often_as_its_share() -> None:
    groups = np.repeat([0, 1, 2], [8000, 1990, 10])
    rows = sample_of(groups, 0, "It is fitted", most=1000)
    assert np.bincount(groups[rows]).tolist() == [800, 199, 10]  # of ten rows, all
    assert (np.diff(rows) > 0).all()
    assert rows.tolist() == sample_of(groups, 0, "It is fitted", most=1000).tolist()
    assert rows.tolist() != sample_of(groups, 1, "It is fitted", most=1000).tolist()


def test_where_every_row_is_a_group_of_its_own_all_are_drawn_alike() -> None:
    rows = sample_of(np.arange(5000) / 7, 0, "It is fitted", most=100)
    assert len(set(rows.tolist())) == 100


def test_a_judge_of_a_sample_leaves_out_the_parents_in_it() -> None:
    asked: list[np.ndarray] = []

    class Judge:
        def judge(self, texts: Any, embeddings: Tensor, parents: np.ndarray) -> Tensor:
            asked.append(parents)
            return torch.zeros(len(texts), CLASSES)

    sampled = SampledJudge(Judge(), np.array([2, 5, 9]), 10)
    sampled.judge(["a", "b"], torch.zeros(2, 8), np.array([[5, 4], [NOBODY, 9]]))
    assert asked[0].tolist() == [[1, NOBODY], [NOBODY, 2]]


class Encoder:
    def __init__(self, embedding: Tensor) -> None:
        self.embedding = embedding

    def encode(self, texts: Any) -> Tensor:
        return self.embedding.expand(len(texts), -1)


def test_a_gate_on_a_sample_still_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, targets = blobs(900, spread=0.1)
    texts = [f"row {at} of the training set" for at in range(900)]
    monkeypatch.setattr(sample_of, "__defaults__", (120,))
    third = Encoder(torch.eye(8)[2:3])  # a sentence of the class that no parent has
    gate = build_gate(texts, embeddings, targets, third, judges=("knn",), policy="keep")
    assert gate is not None and gate.detector is not None
    judge = gate.detector.judges["knn"]
    assert isinstance(judge, SampledJudge)
    assert len(judge.judge_of_sample.embeddings) == 120  # type: ignore[attr-defined]
    assert len(gate.detector.embeddings) == 900
    (found,) = gate.detector.inspect([ROW], third.encode(["one"]))
    assert "third_class" in found.events
    (found,) = gate.detector.inspect([ROW], torch.eye(8)[0:1])
    assert "third_class" not in found.events


def test_a_committee_is_fitted_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = topic_inputs([300, 300])
    monkeypatch.setattr(sample_of, "__defaults__", (100,))
    seen: list[int] = []
    fit = committee.fit_committee
    monkeypatch.setattr(
        committee,
        "fit_committee",
        lambda given, members, store: seen.append(len(given.texts)) or fit(given, members),
    )
    built = committee.build_committee(
        inputs.encoder,  # type: ignore[arg-type]  # the member `encoder` needs no more
        inputs.encoder,
        inputs.texts,
        inputs.embeddings,
        inputs.targets,
        members=["encoder"],
        descriptions=list(inputs.targets.names),
        seed=0,
        calibration=lambda: [],
    )
    assert seen == [100]
    labels = built.label(["c0 word 7", "c1 word 8"]).labels
    assert labels.argmax(1).tolist() == [0, 1]
