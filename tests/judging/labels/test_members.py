"""Members: each learns from the rows it is given, and from no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from labelling import TopicReader, topic_inputs, topic_texts
from tiny import make_encoder

from mixup_hf.data.targets import SINGLE_LABEL, read_targets
from mixup_hf.inverter.encoder import TunableEncoder
from mixup_hf.judging.labels.contrastive import draw_batches, tune
from mixup_hf.judging.labels.heads import HeadLearner, fit_head
from mixup_hf.judging.labels.members import build_learner
from mixup_hf.registry import names

CHEAP = ("encoder", "knn", "label_names", "llm")
ANY_TASK = ("encoder", "knn", "llm")


def test_members_by_name() -> None:
    assert {*CHEAP, "setfit"} <= set(names("member"))
    with pytest.raises(ValueError, match="`committee` must be one of 'encoder', 'knn'"):
        build_learner("oracle", topic_inputs([4, 4]))


@pytest.mark.parametrize("name", CHEAP)
def test_a_member_knows_the_classes_of_unseen_texts(name: str) -> None:
    learner = build_learner(name, topic_inputs([8, 8, 8]))
    texts, labels = topic_texts([20, 20, 20], start=100)
    found = learner.fit(np.arange(24))(texts)
    assert found.shape == (60, 3)
    torch.testing.assert_close(found.sum(1), torch.ones(60, dtype=found.dtype))
    assert (found.argmax(1).numpy() == labels).mean() > 0.9
    assert found.max(1).values.mean() > 0.5


@pytest.mark.parametrize("name", [*ANY_TASK, "setfit"])
def test_a_member_learns_only_from_the_rows_it_is_given(name: str) -> None:
    """Two training sets differ in labels of rows that are left out: the predictions are equal."""
    sizes, kept = [6, 6], np.array([0, 1, 2, 3, 6, 7, 8, 9])
    inputs = topic_inputs(sizes)
    other_labels = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    others = topic_inputs(sizes, targets=read_targets(other_labels, 2, None))
    texts, _ = topic_texts([3, 3], start=50)
    first, second = (build_learner(name, each) for each in (inputs, others))
    if isinstance(first, HeadLearner) and isinstance(second, HeadLearner):
        second.strength = first.strength  # one number is chosen on all rows
    torch.testing.assert_close(first.fit(kept)(texts), second.fit(kept)(texts))


@pytest.mark.parametrize("name", [*CHEAP, "setfit"])
@pytest.mark.parametrize("kept", [[0, 1, 2, 3], [0, 1, 2, 3, 4]])
def test_a_class_may_be_absent_or_alone(name: str, kept: list[int]) -> None:
    learner = build_learner(name, topic_inputs([4, 4, 2]))
    found = learner.fit(np.array(kept))(["c0 word 99", "c2 word 99"])
    assert found.shape == (2, 3)
    assert found.isfinite().all()


def test_features_of_the_llm_are_what_is_left_without_the_mean() -> None:
    """All states lie near (5, 5, ...): what tells them apart is small beside that."""
    learner = build_learner("llm", topic_inputs([8, 8]))
    assert isinstance(learner, HeadLearner)
    np.testing.assert_allclose(np.linalg.norm(learner.features, axis=1), 2**0.5)  # of two states
    assert np.abs(learner.features.mean(0)).max() < 0.2


def test_a_name_is_worth_what_it_gains_by_the_text() -> None:
    """The first name is likelier by nats after any text; without the calibration it always won."""
    inputs = topic_inputs([5, 5])
    asked: list[str] = []

    class Reader(TopicReader):
        def label_log_likelihood(self, texts, names):  # type: ignore[no-untyped-def]
            asked.extend(names)
            return super().label_log_likelihood(texts, names)

    from dataclasses import replace

    inputs = replace(inputs, llm=Reader(2), descriptions=("a first thing", "a second thing"))
    found = build_learner("label_names", inputs).fit(np.arange(10))(["c1 word 9", "c0 word 9"])
    assert found.argmax(1).tolist() == [1, 0]
    assert found.max(1).values.min() > 0.9  # half a nat, sharpened by what the rows show
    assert set(asked) == {"a first thing", "a second thing"}


def test_neighbours_vote_by_similarity_and_other_rows_not_at_all() -> None:
    learner = build_learner("knn", topic_inputs([30, 30], spread=0.05))
    found = learner.fit(np.arange(60))(["c1 word 99"])
    assert found[0, 1] > 0.95


def test_members_without_what_they_need_are_refused() -> None:
    for name in ("llm", "label_names"):
        with pytest.raises(ValueError, match=f"need no LLM where none is loaded, but got '{name}'"):
            build_learner(name, topic_inputs([4, 4], llm=None))
    with pytest.raises(ValueError, match="there is no sentence encoder to tune"):
        build_learner("setfit", topic_inputs([4, 4], tunable_encoder=None))


@pytest.mark.parametrize("labels", [[0.5, 1.5, 2.5, 3.5], [[0, 1], [1, 1], [1, 0], [0, 0]]])
@pytest.mark.parametrize("name", ["setfit", "label_names"])
def test_members_for_one_class_per_text_are_refused_elsewhere(name: str, labels: list) -> None:  # type: ignore[type-arg]
    inputs = topic_inputs([2, 2], targets=read_targets(labels, None, None))
    with pytest.raises(ValueError, match="`committee` must name members.*Use 'encoder', 'llm'"):
        build_learner(name, inputs)


def test_many_classes_are_fitted_to_the_end() -> None:
    """Mean gradients are small with many classes: a fixed tolerance stopped at the start."""
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(120), 4)
    rows = rng.normal(size=(120, 64))[classes] + 0.3 * rng.normal(size=(480, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    head = fit_head(SINGLE_LABEL, rows, np.eye(120)[classes], 100.0)
    assert (head(rows).argmax(1) == classes).mean() > 0.95


def test_a_balanced_head_does_not_lean_to_the_frequent_class() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))  # which say nothing of the classes
    values = np.eye(2)[[0] * 36 + [1] * 4]
    leaning = fit_head(SINGLE_LABEL, rows, values, 0.01)(rows).mean(0)
    even = fit_head(SINGLE_LABEL, rows, values, 0.01, balanced=True)(rows).mean(0)
    np.testing.assert_allclose(leaning, [0.9, 0.1], atol=0.03)
    np.testing.assert_allclose(even, 0.5, atol=0.03)


@pytest.mark.parametrize("name", ["encoder", "llm", "setfit"])
def test_members_are_balanced_if_asked(name: str) -> None:
    inputs = topic_inputs([9, 3])
    plain, balanced = (
        build_learner(name, replace(inputs, balanced=each)).fit(np.arange(12))(["something else"])
        for each in (False, True)
    )
    assert balanced[0, 1] > plain[0, 1]


def test_every_row_of_a_batch_has_a_partner_of_its_class() -> None:
    classes = np.array([0, 0, 0, 1, 1, 1, 2])
    batches = draw_batches(classes, 90, np.random.default_rng(0))
    assert batches.shape == (9, 24)  # 30 turns of 7 rows
    rows, partners = batches[:, :12].ravel(), batches[:, 12:].ravel()
    assert (classes[rows] == classes[partners]).all()
    assert ((rows == partners) == (classes[rows] == 2)).all()  # row 6 is alone in its class
    assert np.ptp(np.bincount(rows)) <= 1
    assert draw_batches(classes, 3, np.random.default_rng(0)).shape == (3, 24)
    assert draw_batches(np.arange(2000) % 150, 90, np.random.default_rng(0)).shape == (90, 24)


def test_tuning_draws_classes_apart_and_leaves_everything_else_alone() -> None:
    texts = ["the market", "a bank", "the tax", "a film", "the song", "an actor"]
    classes = np.array([0, 0, 0, 1, 1, 1])
    source = make_encoder()
    before = source.encode(texts)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tuned = []
    for seed in (0, 0, 1):
        encoder = TunableEncoder(source)
        for _ in range(6):
            tune(encoder, texts, classes, max_steps=20, seed=seed, learning_rate=1e-2)
        tuned.append(encoder.encode(texts))
        table = encoder.model.get_input_embeddings().weight
        assert torch.equal(table, source.model.get_input_embeddings().weight)
        assert not encoder.model.training
    torch.testing.assert_close(torch.rand(3), expected, atol=0, rtol=0)
    assert torch.equal(tuned[0], tuned[1])
    assert not torch.equal(tuned[0], tuned[2])
    assert torch.equal(source.encode(texts), before)
    assert not any(each.requires_grad for each in source.model.parameters())

    def gap(rows: torch.Tensor) -> float:
        cosines, same = rows @ rows.T, torch.from_numpy(classes[:, None] == classes)
        return float(cosines[same].mean() - cosines[~same].mean())

    assert gap(tuned[0]) > gap(before) + 0.1
