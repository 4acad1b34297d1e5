from __future__ import annotations

import numpy as np
import pytest

from mixup_hf.mixing.balance import draw_turn, imbalance, lacking, lacking_rows
from mixup_hf.mixing.pairing import PairPlan
from mixup_hf.mixing.weights import parse_weights

CLASSES = np.repeat([0, 1, 2], [6, 2, 4])


@pytest.mark.parametrize("share", [0.5, 0.7, 1.0])
def test_real_and_added_rows_are_even_together(share: float) -> None:
    sizes = np.array([6, 2, 0, 4])
    added = lacking(sizes, share)
    together = (1 - share) * sizes / sizes.sum() + share * added
    np.testing.assert_allclose(together, [1 / 3, 1 / 3, 0, 1 / 3])


def test_a_class_that_has_more_than_its_share_gets_none() -> None:
    added = lacking(np.array([90, 5, 5]), 0.2)
    assert added[0] == 0
    np.testing.assert_allclose(added[1:], 0.5)


def test_as_many_rows_are_added_as_there_are() -> None:
    assert lacking_rows(CLASSES, 0.5) == {0: 2, 1: 6, 2: 4}
    for share in (0.1, 0.3, 0.9):
        assert sum(lacking_rows(CLASSES, share).values()) == len(CLASSES)


def test_each_row_comes_once_before_any_comes_twice() -> None:
    members = {1: np.array([7, 9]), 2: np.array([3, 4, 5])}
    drawn = draw_turn({1: 5, 2: 2}, members, np.random.default_rng(0)).tolist()
    assert sorted(drawn.count(row) for row in (7, 9)) == [2, 3]
    assert sorted(drawn.count(row) for row in (3, 4, 5)) == [0, 1, 1]


def test_imbalance_is_of_the_classes_that_have_rows() -> None:
    assert imbalance(np.array([20, 0, 2])) == 10
    assert imbalance(np.array([7, 7])) == 1


def test_first_parents_make_up_for_what_rare_classes_lack() -> None:
    plan = PairPlan(CLASSES, pairing="random", weights=parse_weights("beta"), seed=0, balance=0.5)
    assert plan.rows_per_turn == len(CLASSES)
    for epoch in (0, 1):
        first = np.concatenate(
            [plan.chunk(epoch, at, len(CLASSES)).first for at in range(plan.num_chunks(12))]
        )
        assert np.bincount(CLASSES[first]).tolist() == [2, 6, 4]
