"""The committee: it fits any training set, trusts who is right, and is no surer than that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from labelling import TopicEncoder, TopicReader, topic, topic_inputs, topic_texts
from torch import Tensor
from torch.nn import functional as F

from mixup_hf.data.targets import read_targets
from mixup_hf.judging.labels import Committee, LabelInputs, Member, fit_committee
from mixup_hf.judging.labels.members import knn
from mixup_hf.judging.labels.pooling import Scale
from mixup_hf.registry import register, unregister

FAST = ("encoder", "llm", "knn")
UNSEEN, UNSEEN_LABELS = topic_texts([20, 20, 20], start=100)
# Texts of no topic: what they are labelled is chance.
NOBODYS = [f"words without a topic {at}" for at in range(60)]


def right(labels: Tensor, classes: Sequence[int]) -> float:
    return float((labels.argmax(1) == torch.tensor(classes)).float().mean())


def confidence(labels: Tensor) -> float:
    return float(labels.max(1).values.mean())


def test_labels_and_votes_of_unseen_texts() -> None:
    committee = fit_committee(topic_inputs([8, 8, 8]), [*FAST, "label_names"])
    found = committee.label(UNSEEN)
    assert found.labels.shape == (60, 3)
    assert found.labels.dtype == torch.float32
    torch.testing.assert_close(found.labels.sum(1), torch.ones(60))
    assert right(found.labels, UNSEEN_LABELS) > 0.95
    assert list(found.votes) == [*FAST, "label_names"] == list(committee.weights)
    for vote in found.votes.values():
        torch.testing.assert_close(vote.sum(1), torch.ones(60))
        assert (vote > 0).all()


SIZES = {
    "2 classes of 5": [5, 5],
    "2 classes of 1": [1, 1],
    "a class of 1": [6, 6, 1],
    "all alone": [1, 1, 1],
    "10 to 1": [40, 4],
    "150 classes of 10": [10] * 150,
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_any_training_set_will_do(sizes: list[int]) -> None:
    committee = fit_committee(topic_inputs(sizes, spread=0.05), FAST)
    texts, labels = topic_texts([2] * len(sizes), start=1000)
    found = committee.calibrate(texts).label(texts).labels
    assert found.isfinite().all()
    assert (found > 0).all()
    assert right(found, labels) > 0.9
    target = max(committee.accuracy, min(1.0, 1.5 / len(sizes)))
    assert confidence(found) <= target + 1e-4


@pytest.mark.parametrize("sizes", [[5, 5], [3, 1], [1, 1]])
def test_setfit_fits_any_training_set(sizes: list[int]) -> None:
    committee = fit_committee(topic_inputs(sizes), ["setfit"])
    assert committee.label(["c0 word 9"]).labels.isfinite().all()


def test_who_knows_more_counts_more() -> None:
    """The LLM's states are nothing but noise here."""
    inputs = topic_inputs([20, 20, 20], llm=TopicReader(3, spread=50.0))
    committee = fit_committee(inputs, ["encoder", "llm"])
    assert committee.accuracies["encoder"] > 0.9 > 0.7 > committee.accuracies["llm"]
    assert committee.weights["encoder"] > 3 * committee.weights["llm"]
    assert committee.accuracy > 0.9


def test_accuracy_is_that_on_rows_not_seen() -> None:
    """Embeddings that say nothing, in enough dimensions to learn every row by heart."""
    texts, labels = topic_texts([10, 10])
    noise = F.normalize(torch.randn(20, 200, generator=torch.Generator().manual_seed(0)), dim=1)

    class Noise:
        def encode(self, read: Sequence[str]) -> Tensor:
            return torch.stack([noise[texts.index(text)] for text in read])

    inputs = LabelInputs(texts, noise, read_targets(labels, 2, None), Noise())
    committee = fit_committee(inputs, ["encoder"])
    assert right(committee.members["encoder"].predict(texts), labels) == 1.0
    assert committee.accuracy < 0.8
    assert (
        confidence(committee.calibrate(texts).label(texts).labels)
        <= max(committee.accuracy, 0.75) + 1e-4
    )


def test_no_surer_of_texts_nobody_labelled_than_right_on_held_out_rows() -> None:
    inputs = topic_inputs([10, 10, 10], spread=1.0, llm=TopicReader(3, spread=1.0))
    committee = fit_committee(inputs, FAST)
    assert committee.accuracy < 0.95
    target = max(committee.accuracy, 0.5)
    clear, _ = topic_texts([20, 20, 20], start=300)
    assert confidence(committee.calibrate(clear).label(clear).labels) <= target + 1e-4
    before = committee.label(UNSEEN).labels
    committee.calibrate(NOBODYS)
    assert confidence(committee.label(NOBODYS).labels) <= target + 1e-4
    assert (committee.label(UNSEEN).labels.argmax(1) == before.argmax(1)).all()
    again = fit_committee(inputs, FAST, calibration_texts=NOBODYS)
    assert again.temperature == committee.temperature


def test_labels_do_not_depend_on_what_was_labelled_before() -> None:
    first, second = (fit_committee(topic_inputs([6, 6, 6]), FAST) for _ in range(2))
    whole = first.label(UNSEEN).labels
    parts = [second.label(UNSEEN[at : at + 7]).labels for at in range(56, -7, -7)]
    torch.testing.assert_close(torch.cat([part for part in parts[::-1] if len(part)]), whole)
    assert first.weights == second.weights


def test_each_text_is_read_once_by_each_model() -> None:
    inputs = topic_inputs([6, 6, 6])
    encoder, llm = inputs.encoder, inputs.llm
    assert isinstance(encoder, TopicEncoder)
    assert isinstance(llm, TopicReader)
    encoder.read = 0
    committee = fit_committee(inputs, FAST)
    assert (encoder.read, llm.read) == (0, 18)  # embeddings of training texts are given
    committee.label(UNSEEN)
    committee.label([*UNSEEN[:5], *UNSEEN[:5]])
    assert (encoder.read, llm.read) == (60, 78)


def perfect(texts: Sequence[str]) -> Tensor:
    return F.one_hot(torch.tensor([topic(text) for text in texts]), 3).float()


def test_a_member_from_outside_has_a_fixed_weight() -> None:
    """Two that disagree are both heard, however sure one of them is."""
    inputs = topic_inputs([8, 8, 8])
    contrary = Member(lambda texts: perfect(texts).roll(1, 1))
    committee = fit_committee(inputs, ["encoder"], extra={"model": contrary})
    assert committee.weights["model"] == 0.8
    assert "model" not in committee.accuracies
    alone = fit_committee(inputs, ["encoder"])
    assert committee.accuracy == alone.accuracy
    label = committee.calibrate(UNSEEN).label(UNSEEN[:1]).labels[0]
    assert label[:2].min() > 0.1
    assert label[2] < 0.05
    joined = alone.joined_by("model", contrary)
    torch.testing.assert_close(joined.calibrate(UNSEEN).label(UNSEEN[:1]).labels[0], label)


def test_members_that_agree_are_surer_together() -> None:
    inputs = topic_inputs([8, 8, 8], spread=0.8)
    alone = fit_committee(inputs, ["encoder"])
    weak = Member(lambda texts: 0.4 * perfect(texts) + 0.2)
    both = alone.joined_by("model", weak)
    assert confidence(both.label(NOBODYS[:0] or UNSEEN).labels) > 0.4
    assert right(both.label(UNSEEN).labels, UNSEEN_LABELS) > right(
        alone.label(UNSEEN).labels, UNSEEN_LABELS
    )


def test_a_member_from_outside_with_held_out_predictions_is_weighed_as_others_are() -> None:
    inputs = topic_inputs([8, 8, 8], spread=0.8)
    knows = Member(perfect, perfect(inputs.texts))
    committee = fit_committee(inputs, ["encoder"], extra={"model": knows})
    assert committee.accuracies["model"] == 1.0
    assert committee.weights["model"] > committee.weights["encoder"]


def test_only_members_from_outside() -> None:
    committee = fit_committee(topic_inputs([5, 5, 5]), [], extra={"model": Member(perfect)})
    found = committee.label(UNSEEN).labels
    assert right(found, UNSEEN_LABELS) == 1.0
    assert confidence(found) <= 0.5 + 1e-4  # its accuracy is unknown: half as sure again as chance


def test_multi_label() -> None:
    texts, classes = topic_texts([10, 10, 10, 10])
    both = [[int(label in (0, 2)), int(label in (1, 2)), 0] for label in classes]
    inputs = topic_inputs([10, 10, 10, 10], targets=read_targets(both, None, None))
    committee = fit_committee(inputs, FAST)
    found = committee.label(["c0 word 99", "c2 word 99", "c3 word 99"]).labels
    assert (found > 0.5).tolist() == [[True, False, False], [True, True, False], [False] * 3]
    assert committee.accuracy > 0.9
    assert confidence(found) <= 1.0


def test_regression() -> None:
    texts, classes = topic_texts([10, 10, 10])
    numbers = [[0.5, 2.5, 7.5][label] for label in classes]
    committee = fit_committee(
        topic_inputs([10, 10, 10], targets=read_targets(numbers, None, None)), FAST
    )
    found = committee.label(["c0 word 99", "c2 word 99"]).labels
    assert found.shape == (2, 1)
    torch.testing.assert_close(found[:, 0], torch.tensor([0.5, 7.5]), atol=1.5, rtol=0)
    assert committee.accuracy > 0.8
    assert committee.temperature == 1.0
    assert "R^2 on held-out rows" in committee.describe()
    joined = committee.joined_by("model", Member(lambda texts: torch.full((len(texts), 1), 3.0)))
    torch.testing.assert_close(joined.label(["c0 word 99"]).labels, (found[:1] + 3) / 2)


def test_one_line_for_the_log() -> None:
    line = fit_committee(
        topic_inputs([6, 6, 6]), ["encoder", "knn"], extra={"model": Member(perfect)}
    ).describe()
    assert line.startswith("Committee of 3, accuracy on held-out rows: encoder 1.00 (weight ")
    assert "model not held out (weight 0.80); together 1.00, temperature" in line
    assert "\n" not in line


def test_a_sentence_without_a_letter_is_labelled() -> None:
    committee = fit_committee(topic_inputs([6, 6, 6]), FAST)
    assert committee.label([" ", "c1 word 9"]).labels.shape == (2, 3)
    nothing = committee.label([])
    assert nothing.labels.shape == nothing.votes["knn"].shape == (0, 3)


def test_a_member_is_one_registered_function() -> None:
    class Prior:
        max_folds = 2

        def __init__(self, values: np.ndarray) -> None:
            self.values, self.fitted = values, []  # type: ignore[var-annotated]

        def fit(self, rows: np.ndarray):  # type: ignore[no-untyped-def]
            self.fitted.append(len(rows))
            mean = torch.from_numpy(self.values[rows].mean(0))
            return lambda texts: mean.expand(len(texts), -1)

    made: list[Prior] = []

    @register("member", "prior", help="the frequency of each class")
    def build(inputs: LabelInputs) -> Prior:
        made.append(Prior(inputs.values))
        return made[0]

    try:
        committee = fit_committee(topic_inputs([8, 4]), ["prior"])
        assert made[0].fitted == [6, 6, 12]
        assert committee.label(["x"]).votes["prior"][0, 0] == pytest.approx(2 / 3, abs=0.01)
    finally:
        unregister("member", "prior")


def test_what_cannot_work_is_refused() -> None:
    inputs = topic_inputs([4, 4])
    with pytest.raises(ValueError, match="`committee` must name at least one member, without"):
        fit_committee(inputs, [])
    with pytest.raises(ValueError, match="without duplicates, but got .'knn', 'knn'.."):
        fit_committee(inputs, ["knn", "knn"])
    with pytest.raises(ValueError, match="`committee` must be one of 'encoder'"):
        fit_committee(inputs, ["oracle"])
    with pytest.raises(ValueError, match="hold one row for each of 7 texts, but got 8"):
        replace(inputs, texts=inputs.texts[:7])
    with pytest.raises(
        ValueError, match=r"predict 2 classes for each of 8 texts, but got \(8, 3\)"
    ):
        Committee({"model": Member(perfect)}, ["c0"] * 8, inputs.targets)


def test_probabilities_of_any_texts() -> None:
    committee = fit_committee(topic_inputs([8, 8, 8]), FAST)
    found = committee.predict_proba(UNSEEN)
    assert (found.shape, found.dtype) == ((60, 3), np.float32)
    assert (found == committee.label(UNSEEN).labels.numpy()).all()
    assert committee.names == ("0", "1", "2")
    assert committee.predict_proba([]).shape == (0, 3)
    with pytest.raises(TypeError, match="must be a list of strings, but got one string"):
        committee.predict_proba("c0 word 1")
    with pytest.raises(ValueError, match="hold texts, as the training set does"):
        committee.predict_proba([("c0 word 1", "c0 word 2")])


def test_probabilities_of_several_labels_are_independent_and_numbers_have_none() -> None:
    both = [[int(label in (0, 2)), int(label in (1, 2))] for label in topic_texts([10] * 3)[1]]
    inputs = topic_inputs([10] * 3, targets=read_targets(both, None, None))
    found = fit_committee(inputs, FAST).predict_proba(["c2 word 99"])
    assert found.sum() > 1.2
    numbers = topic_inputs([10, 10], targets=read_targets([0.5, 1.5] * 10, None, None))
    with pytest.raises(ValueError, match="predicts numbers: they are in label"):
        fit_committee(numbers, ["encoder"]).predict_proba(["c2 word 99"])


def test_two_rows_among_twenty_are_still_a_class() -> None:
    committee = fit_committee(topic_inputs([20, 2]), [*FAST, "setfit"])
    texts, labels = topic_texts([10, 10], start=100)
    assert right(committee.label(texts).labels, labels) > 0.85
    assert committee.skill > 0.4
    assert all((committee.predict_proba(texts) > 0).ravel())


def test_skill_is_zero_for_who_names_the_largest_class() -> None:
    largest = [[0.9, 0.1]] * 22
    member = Member(lambda texts: torch.tensor(largest[: len(texts)]), torch.tensor(largest))
    inputs = topic_inputs([20, 2])
    committee = Committee({"largest": member}, inputs.texts, inputs.targets)
    assert (committee.skill, committee.accuracy) == (0.0, pytest.approx(20 / 22))
    assert fit_committee(topic_inputs([8, 8], spread=0.05), FAST).skill == pytest.approx(1)


@pytest.mark.parametrize(
    ("problem", "predictions", "values", "skill"),
    [
        ("multi_label_classification", [[0.9, 0.9], [0.1, 0.9]], [[1, 1], [0, 0]], 0.5),
        ("multi_label_classification", [[0.9, 0.9], [0.1, 0.9]], [[1, 1], [0, 1]], 0.5),
        ("single_label_classification", [[0.1, 0.9], [0.9, 0.1]], [[1, 0], [0, 1]], -1.0),
        ("regression", [[1.0], [3.0]], [[1.0], [3.0]], 1.0),
    ],
)
def test_skill(problem: str, predictions: list[Any], values: list[Any], skill: float) -> None:
    assert Scale(problem).skill(np.array(predictions), np.array(values)) == pytest.approx(skill)


def test_copies_of_rows_do_not_make_a_committee_of_noise_look_skilled() -> None:
    inputs = topic_inputs([15, 15], spread=3.0)
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], 15)).tolist()
    texts = [f"c0 word {at}" for at in range(30)]

    def skill(copies: int) -> float:
        given = replace(
            inputs,
            texts=texts * copies,
            embeddings=inputs.encoder.encode(texts * copies),
            targets=read_targets(labels * copies, 2, None),
        )
        return fit_committee(given, FAST).skill

    assert skill(1) < 0.4
    assert skill(4) < 0.4


def test_the_member_knn_is_a_vote_of_all_rows_where_they_are_few() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values, queries = np.eye(3)[np.arange(12) % 3], rows[:5] + 0.01
    cosines = queries @ rows.T
    weights = np.exp((cosines - cosines.max(1, keepdims=True)) / 0.1)
    wanted = (weights @ values + 0.1 * values.mean(0)) / (weights.sum(1, keepdims=True) + 0.1)
    np.testing.assert_allclose(knn._vote(*knn._nearest(queries, rows), values, 0.1), wanted)
    own, near = knn._nearest(np.concatenate([rows] * 60), np.concatenate([rows] * 60), itself=True)
    assert own.shape == (720, 20)
    assert not (near == np.arange(720)[:, None]).any()
