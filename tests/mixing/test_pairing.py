from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup_hf.mixing.pairing import PairPlan, Pairs
from mixup_hf.mixing.weights.beta import Beta
from mixup_hf.mixing.weights.dirichlet import Dirichlet
from mixup_hf.mixing.weights.uniform import Uniform

COLUMNS = ("index", "parents", "shares")
BY_LABEL = ("random", "same_class", "cross_class")
LABELS = st.lists(st.integers(0, 3), min_size=2, max_size=20).map(np.array)


def make_plan(
    labels: np.ndarray, pairing: str = "random", seed: int = 0, chunk_size: int = 4
) -> PairPlan:
    return PairPlan(labels, pairing=pairing, weights=Uniform(), seed=seed, chunk_size=chunk_size)


def whole(plan: PairPlan, num_pairs: int, epoch: int = 0) -> Pairs:
    chunks = [plan.chunk(epoch, each, num_pairs) for each in range(plan.num_chunks(num_pairs))]
    return Pairs(*(np.concatenate([getattr(part, name) for part in chunks]) for name in COLUMNS))


def same(left: Pairs, right: Pairs) -> bool:
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in COLUMNS)


@given(LABELS, st.integers(0, 2**40), st.integers(1, 7), st.integers(1, 60))
def test_a_plan_holds_exactly_the_pairs_that_were_asked_for(
    labels: np.ndarray, seed: int, chunk_size: int, num_pairs: int
) -> None:
    pairs = whole(make_plan(labels, seed=seed, chunk_size=chunk_size), num_pairs)
    assert pairs.index.tolist() == list(range(num_pairs))
    assert len(pairs) == len(pairs.first) == len(pairs.second) == len(pairs.lams) == num_pairs
    assert ((pairs.lams >= 0) & (pairs.lams <= 1)).all()


@given(LABELS, st.integers(0, 2**40), st.integers(1, 7), st.integers(1, 60))
def test_every_row_is_a_first_parent_before_any_is_one_twice(
    labels: np.ndarray, seed: int, chunk_size: int, num_pairs: int
) -> None:
    first = whole(make_plan(labels, seed=seed, chunk_size=chunk_size), num_pairs).first
    for start in range(0, num_pairs, len(labels)):
        turn = first[start : start + len(labels)].tolist()
        assert len(set(turn)) == len(turn)
        assert set(turn) <= set(range(len(labels)))


@given(LABELS, st.integers(0, 2**40), st.sampled_from(BY_LABEL))
def test_partners_obey_the_rule_of_the_pairing(labels: np.ndarray, seed: int, pairing: str) -> None:
    if pairing == "cross_class" and len(set(labels.tolist())) < 2:
        return
    pairs = whole(make_plan(labels, pairing, seed), 2 * len(labels))
    counts = Counter(labels.tolist())
    for row, partner in zip(pairs.first, pairs.second, strict=True):
        assert 0 <= partner < len(labels)
        if pairing == "cross_class":
            assert labels[partner] != labels[row]
        elif pairing == "random":
            assert partner != row
        else:
            assert labels[partner] == labels[row]
            assert (partner == row) == (counts[int(labels[row])] == 1)


@pytest.mark.parametrize("pairing", BY_LABEL)
def test_every_allowed_partner_is_equally_likely(pairing: str) -> None:
    labels = np.array([0, 1, 0, 2, 1, 0])
    pairs = whole(make_plan(labels, pairing, chunk_size=600), 6 * 1200)
    partners = Counter(pairs.second[pairs.first == 2].tolist())
    allowed = {"random": [0, 1, 3, 4, 5], "same_class": [0, 5], "cross_class": [1, 3, 4]}[pairing]
    assert sorted(partners) == allowed
    expected = 1200 / len(allowed)
    assert max(abs(count - expected) for count in partners.values()) < 5 * expected**0.5


@given(LABELS, st.integers(0, 2**40), st.integers(0, 5), st.integers(0, 4))
def test_a_chunk_can_be_made_without_the_others(
    labels: np.ndarray, seed: int, epoch: int, chunk: int
) -> None:
    used = make_plan(labels, seed=seed)
    for other in (4, 0, 3):
        used.chunk(epoch, other, 20)
    assert same(used.chunk(epoch, chunk, 20), make_plan(labels, seed=seed).chunk(epoch, chunk, 20))


def test_a_full_chunk_does_not_depend_on_how_many_follow() -> None:
    plan = make_plan(np.arange(6) % 2)
    assert same(plan.chunk(0, 1, 8), plan.chunk(0, 1, 100))


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_gives_other_pairs_and_ratios(other: dict[str, int]) -> None:
    labels = np.arange(30) % 3
    one = whole(make_plan(labels), 30)
    two = whole(make_plan(labels, seed=other.get("seed", 0)), 30, other.get("epoch", 0))
    assert not np.array_equal(one.first, two.first)
    assert not np.array_equal(one.second, two.second)
    assert not set(one.lams) & set(two.lams)


def test_a_strategy_decides_how_many_of_each_class_come_first() -> None:
    labels = np.array([0] * 7 + [1] * 2 + [2] * 4)
    plan = make_plan(labels, "minority", chunk_size=5)
    assert plan.wanted == {1: 5, 2: 3}  # up to the seven of the majority
    pairs = whole(plan, 2 * plan.rows_per_turn)
    for turn in (pairs.first[:8], pairs.first[8:]):
        assert Counter(labels[turn].tolist()) == {1: 5, 2: 3}
        # Every member comes before any comes again.
        counts = Counter(turn.tolist())
        assert max(counts[7], counts[8]) - min(counts[7], counts[8]) <= 1
    assert (labels[pairs.second] == labels[pairs.first]).all()


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        ("auto", {1: 3}),
        ("not majority", {1: 3}),
        ("minority", {1: 3}),
        (0.75, {1: 1}),
        ({0: 6}, {0: 2}),
        ({0: 4, 1: 9}, {1: 8}),
    ],
)
def test_strategies_mean_what_imbalanced_learn_means(strategy: Any, wanted: Any) -> None:
    labels = np.array([0, 0, 0, 0, 1])
    if strategy == 0.75:
        labels = np.array([0, 0, 0, 0, 1, 1])
    plan = PairPlan(labels, pairing="random", weights=Uniform(), seed=0, sampling_strategy=strategy)
    assert plan.wanted == wanted


def test_three_parents_have_weights_that_sum_to_one() -> None:
    labels = np.arange(30) % 3
    plan = PairPlan(labels, pairing="same_class", weights=Dirichlet(1.0, 3), seed=0, chunk_size=7)
    pairs = whole(plan, 60)
    assert pairs.parents.shape == pairs.shares.shape == (60, 3)
    np.testing.assert_allclose(pairs.shares.sum(axis=1), 1)
    assert (labels[pairs.parents] == labels[pairs.first][:, None]).all()
    assert (pairs.parents[:, 1] != pairs.parents[:, 2]).any()


def test_no_two_chunks_share_their_ratios() -> None:
    lams = whole(make_plan(np.arange(30) % 3), 60).lams
    assert len(set(lams)) == len(lams)


def test_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()
    whole(make_plan(np.arange(30) % 3), 60)
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(("pairs", "chunks"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_the_last_chunk_may_be_shorter(pairs: int, chunks: int) -> None:
    plan = make_plan(np.arange(6) % 2)
    assert plan.num_chunks(pairs) == chunks
    assert len(plan.chunk(0, chunks - 1, pairs)) == (pairs - 1) % 4 + 1


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        ([0, 1], {"pairing": "smothe"}, "`pairing` must be one of 'cross_class', 'local'"),
        ([0, 1], {"pairing": "smote"}, "'smote' needs `embeddings`"),
        ([0, 1], {"num_neighbors": 0}, "`num_neighbors` must be at least 1"),
        ([0, 1], {"sampling_strategy": "some"}, "`sampling_strategy` must be one of 'auto'"),
        ([0, 1], {"sampling_strategy": "auto"}, "asks for no row"),
        ([0, 1], {"sampling_strategy": {0: 0}}, "greater or equal.*Give 'auto'"),
        ([0, 1], {"sampling_strategy": {5: 9}}, "5.* not present"),
        ([0, 1], {"chunk_size": 0}, "`chunk_size` must be at least 1"),
        ([0], {}, "at least two rows"),
        ([0, 0], {"pairing": "cross_class"}, "needs at least two classes"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused(
    labels: list[int], changes: dict[str, object], message: str
) -> None:
    settings = {"pairing": "random", "weights": Beta(), "seed": 0} | changes
    with pytest.raises(ValueError, match=message):
        PairPlan(np.array(labels), **settings)


def test_a_turn_is_shuffled_once_for_all_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each chunk, N rows would cost N squared."""
    plan = make_plan(np.arange(60) % 3)
    shuffled: list[int] = []
    turn = plan._turn
    monkeypatch.setattr(plan, "_turn", lambda rng: shuffled.append(1) or turn(rng))
    in_order = whole(plan, 60)
    assert len(shuffled) == 1
    other = plan.chunk(1, 0, 60)
    assert same(plan.chunk(0, 3, 60), Pairs(*(getattr(in_order, name)[12:16] for name in COLUMNS)))
    assert same(other, make_plan(np.arange(60) % 3).chunk(1, 0, 60))
    assert len(shuffled) == 3
