"""Partners that depend on embeddings or targets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from mixup_hf.mixing.pairing import PairPlan
from mixup_hf.mixing.pairings import TrainingRows
from mixup_hf.mixing.pairings.local import Local
from mixup_hf.mixing.pairings.near_target import NearTarget
from mixup_hf.mixing.pairings.smote import Smote
from mixup_hf.mixing.weights.uniform import Uniform
from mixup_hf.runtime import counter_rng

# On a line: two classes that meet between rows 3 and 4, a third far away with one row.
PLACES = torch.tensor([[0.0], [1.0], [2.1], [3.3], [4.0], [5.0], [6.1], [50.0]])
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2])


def drawn(partners: object, row: int, times: int = 3000) -> Counter[int]:
    rows = np.full(times, row)
    found: np.ndarray = partners.draw(rows, counter_rng(0))  # type: ignore[attr-defined]
    return Counter(found.tolist())


def placed(k: int) -> TrainingRows:
    return TrainingRows(LABELS, embeddings=lambda: PLACES, num_neighbors=k)


def even(counts: Counter[int], expected: set[int]) -> None:
    assert set(counts) == expected
    mean = sum(counts.values()) / len(expected)
    assert max(abs(count - mean) for count in counts.values()) < 5 * mean**0.5


@pytest.mark.parametrize(
    ("row", "k", "expected"),
    [(3, 2, {2, 1}), (0, 3, {1, 2, 3}), (4, 5, {5, 6}), (7, 5, {7})],
)
def test_smote_takes_the_nearest_of_the_class(row: int, k: int, expected: set[int]) -> None:
    even(drawn(Smote(placed(k)), row), expected)


def test_smote_offers_a_text_once_and_never_its_own_copy() -> None:
    """Of 4 texts in 3 copies each, of one class; the first text is in the other class too."""
    texts = torch.eye(4).repeat(3, 1)
    labels, first = np.array([0] * 12 + [1, 1]), np.array([*range(4)] * 3 + [0, 13])
    embeddings = torch.cat([texts, torch.eye(4)[[0, 2]]])
    rows = TrainingRows(labels, embeddings=lambda: embeddings, num_neighbors=5, first=first)
    drawn = np.arange(14).repeat(50)
    partners = Smote(rows).draw(drawn, np.random.default_rng(0))
    assert (first[partners] != first[drawn]).all()
    assert {*partners[drawn < 12]} == {0, 1, 2, 3}
    alone = TrainingRows(
        np.zeros(6), embeddings=lambda: torch.ones(6, 4), first=np.zeros(6, np.int64)
    )
    assert (Smote(alone).draw(np.arange(6), np.random.default_rng(0)) == np.arange(6)).all()


@pytest.mark.parametrize(
    ("row", "k", "expected"),
    [(3, 2, {4}), (4, 3, {3, 2}), (0, 2, {1, 2}), (7, 2, {5, 6})],
)
def test_local_takes_another_class_only_when_it_is_near(
    row: int, k: int, expected: set[int]
) -> None:
    even(drawn(Local(placed(k)), row), expected)


def test_near_targets_are_likelier_as_the_formula_says() -> None:
    targets = np.array([0.0, 0.2, 0.4, 5.0])
    partners = NearTarget(TrainingRows(targets))
    scale = 0.1 * targets.std()
    expected = np.exp(-((targets - 0.2) ** 2) / (2 * scale**2))
    expected[1] = 0
    counts = drawn(partners, 1, 20_000)
    share = np.array([counts[row] for row in range(4)]) / 20_000
    np.testing.assert_allclose(share, expected / expected.sum(), atol=0.02)
    assert set(drawn(partners, 3)) == {2}  # far from all: the nearest, not an underflow


@pytest.mark.parametrize("pairing", ["smote", "local"])
def test_a_plan_asks_for_embeddings_once_and_only_when_it_draws(pairing: str) -> None:
    asked: list[int] = []

    def embeddings() -> torch.Tensor:
        asked.append(1)
        return PLACES

    plan = PairPlan(
        LABELS,
        pairing=pairing,
        weights=Uniform(),
        seed=0,
        chunk_size=4,
        num_neighbors=2,
        embeddings=embeddings,
    )
    assert not asked
    pairs = plan.chunk(0, 0, 8)
    plan.chunk(0, 1, 8)
    assert len(asked) <= (3 if pairing == "smote" else 1)  # once for each class at most
    again = PairPlan(
        LABELS,
        pairing=pairing,
        weights=Uniform(),
        seed=0,
        chunk_size=4,
        num_neighbors=2,
        embeddings=lambda: PLACES,
    )
    np.testing.assert_array_equal(pairs.parents, again.chunk(0, 0, 8).parents)
