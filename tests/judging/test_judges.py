"""Judges: probabilities, found without the parents."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from judging_data import ROW, blobs, nobody
from tiny import FakeEncoder, make_inverter, make_llm, word_tokenizer
from torch import Tensor

from mixup_hf.inverter.likelihood import label_log_likelihood
from mixup_hf.judging import ClassifierJudge, KnnJudge, LikelihoodJudge, build_gate
from mixup_hf.judging.judges import Judge, JudgeInputs, build_judge
from mixup_hf.registry import names, register, unregister


@pytest.mark.parametrize("kind", [KnnJudge, ClassifierJudge])
def test_judges_give_probabilities_and_know_their_classes(kind: type) -> None:
    judge: Judge = kind(*blobs(90))
    unseen, labels = blobs(60, seed=1)
    judged = judge.judge(["x"] * 60, unseen, nobody(60))
    torch.testing.assert_close(judged.sum(1), torch.ones(60))
    assert (judged > 0).all()
    assert (judged.argmax(1) == labels.argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize("kind", [KnnJudge, ClassifierJudge])
def test_a_parent_has_no_say(kind: type) -> None:
    """Two rows labelled otherwise than all around them are believed by nobody but each other.

    With both of them left out, their own places are judged as their neighbours are labelled.
    """
    embeddings, labels = blobs(90, spread=0.05)
    liars = [0, 3]
    labels[liars] = labels[1].clone()
    judge: Judge = kind(embeddings, labels)
    without = judge.judge(["x"] * 2, embeddings[liars], np.array([liars, liars]))
    assert (without.argmax(1) == 0).all()
    alone = KnnJudge(embeddings, labels, num_neighbors=1)
    assert (alone.judge(["x"] * 2, embeddings[liars], nobody(2)).argmax(1) == 1).all()


def test_neighbours_are_weighed_by_distance() -> None:
    embeddings = torch.tensor([[0.0], [1.0], [3.0]])
    labels = torch.eye(3)
    judged = KnnJudge(embeddings, labels, num_neighbors=3).judge(
        ["x"], torch.tensor([[0.0]]), nobody(1)
    )
    # One neighbour is asked of three rows: two might be parents.
    expected = torch.tensor([1.0, 0.0, 0.0]) + 1 / 3
    torch.testing.assert_close(judged[0], expected / expected.sum())


def test_a_class_too_small_for_folds_is_refused() -> None:
    embeddings, labels = blobs(7)
    with pytest.raises(ValueError, match="3 rows of each class, but one has 2. Use 'knn'"):
        ClassifierJudge(embeddings, labels)


def test_the_likelihood_judge_compares_names_with_what_they_are_worth_alone() -> None:
    asked: list[Sequence[str]] = []

    def log_likelihood(texts: Sequence[str], names: Sequence[str]) -> Tensor:
        asked.append(texts)
        base = torch.tensor([[-1.0, -5.0]]).expand(len(texts), 2)
        gain = torch.tensor([[0.0, 2.0 if "goal" in text else 0.0] for text in texts])
        return base + gain

    judge = LikelihoodJudge(log_likelihood, ["news", "sport"])
    judged = judge.judge(["a goal", "a law"], torch.zeros(2, 8), nobody(2))
    assert judged.argmax(1).tolist() == [1, 0]
    torch.testing.assert_close(judged[1], torch.tensor([0.5, 0.5]))
    judge.judge(["a law"], torch.zeros(1, 8), nobody(1))
    assert sum(texts == ["..."] for texts in asked) == 1  # asked once


def test_log_likelihoods_are_those_of_one_sequence_at_a_time() -> None:
    llm, tokenizer = make_llm(), word_tokenizer(classifier=False)
    texts, names = ["the red market", "a goal"], ["game", "film star", "tax"]
    found = label_log_likelihood(llm, tokenizer, texts, names, template="what is {text} for")
    for row, text in enumerate(texts):
        for column, name in enumerate(names):
            question = tokenizer(f"what is {text} for")["input_ids"]
            answer = tokenizer(name)["input_ids"]
            logits = llm(torch.tensor([question + answer])).logits[0].log_softmax(-1)
            places = range(len(question) - 1, len(question) + len(answer) - 1)
            each = [logits[at, token] for at, token in zip(places, answer, strict=True)]
            assert found[row, column].item() == pytest.approx(
                torch.stack(each).mean().item(), abs=1e-4
            )


def test_an_inverter_answers_for_its_llm() -> None:
    found = make_inverter().label_log_likelihood(["the market", "a film"], ["tax", "law"])
    assert found.shape == (2, 2)
    assert (found < 0).all()


def inputs(count: int = 90) -> JudgeInputs:
    return JudgeInputs([f"text {row}" for row in range(count)], *blobs(count), FakeEncoder())


def test_judges_are_built_by_name() -> None:
    assert {"classifier", "knn", "llm"} <= set(names("judge"))
    assert isinstance(build_judge("knn", inputs()), KnnJudge)
    assert isinstance(build_judge("classifier", inputs()), ClassifierJudge)
    with pytest.raises(ValueError, match="`judges` must be one of 'classifier', 'knn', 'llm'"):
        build_judge("oracle", inputs())
    with pytest.raises(ValueError, match="'llm' needs an LLM.*Use 'knn' or 'classifier'"):
        build_judge("llm", inputs())


def test_a_judge_is_one_registered_function() -> None:
    class Constant:
        def __init__(self, prior: Tensor) -> None:
            self.prior = prior

        def judge(self, texts: Sequence[str], embeddings: Tensor, parents: np.ndarray) -> Tensor:
            return self.prior.expand(len(texts), -1)

    @register("judge", "constant", help="the class frequencies, whatever the sentence")
    def build(inputs: JudgeInputs) -> Judge:
        return Constant(inputs.targets.mean(0))

    try:
        given = inputs()
        gate = build_gate(
            given.texts, given.embeddings, given.targets, given.encoder, judges=("constant",)
        )
        assert gate is not None
        (row,) = gate.review([ROW], lambda places, *_: [ROW for _ in places])
        assert row.judges.keys() == {"constant"} or row.mitigation == "parent"
    finally:
        unregister("judge", "constant")


def test_listing_judges_imports_no_heavy_package() -> None:
    code = (
        "import sys; from mixup_hf.registry import choices; assert 'knn' in choices('judge'); "
        "print([name for name in ('torch', 'transformers', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
