"""What is done to the training rows before any arm sees them."""

from __future__ import annotations

from collections import Counter

import pytest

from mixup_hf.data.tables import LabelledTexts, draw_shots
from mixup_hf.evaluation.experiment.regimes import draw_rows, flip_labels

TABLE = LabelledTexts(
    [f"text {row}" for row in range(100)] + ["text 0"],
    ["abcde"[row % 5] for row in range(100)] + ["a"],
)


def test_by_default_rows_are_the_shots_alone() -> None:
    assert draw_rows(TABLE, 4, 1) == (draw_shots(TABLE, 4, 1), [])


def test_half_of_the_classes_shrink_to_a_part_of_the_same_rows() -> None:
    shrunk = set()
    for seed in range(4):
        rows, _ = draw_rows(TABLE, 10, seed, imbalance=5)
        assert rows == draw_rows(TABLE, 10, seed, imbalance=5)[0]
        counts = Counter(rows.labels)
        assert sorted(counts.values()) == [2, 2, 10, 10, 10]
        shrunk.add(frozenset(name for name, count in counts.items() if count == 2))
        assert set(rows.texts) <= set(draw_shots(TABLE, 10, seed).texts)
    assert len(shrunk) > 1
    assert min(Counter(draw_rows(TABLE, 3, 0, imbalance=50)[0].labels).values()) == 1


def test_texts_without_labels_are_none_of_the_rows_drawn() -> None:
    for imbalance in (1, 10):
        _, texts = draw_rows(TABLE, 10, 2, imbalance=imbalance, unlabeled=20)
        assert len(set(texts)) == 20 and not set(texts) & set(draw_shots(TABLE, 10, 2).texts)
    # A text that occurs twice counts once, and not if it was drawn.
    left = draw_rows(TABLE, 10, 2, unlabeled=1000)[1]
    assert (
        len(left) == len(set(left)) == len(set(TABLE.texts) - set(draw_shots(TABLE, 10, 2).texts))
    )


def test_a_share_of_the_labels_is_wrong_and_the_same_for_a_seed() -> None:
    noisy = flip_labels(TABLE, 0.2, 3)
    wrong = [row for row in range(101) if noisy.labels[row] != TABLE.labels[row]]
    assert len(wrong) == 20 and noisy.texts == TABLE.texts
    assert set(noisy.labels) == set("abcde")
    assert noisy == flip_labels(TABLE, 0.2, 3) != flip_labels(TABLE, 0.2, 4)
    assert len({noisy.labels[row] for row in wrong}) > 1
    assert flip_labels(TABLE, 0.0, 3) is TABLE
    with pytest.raises(ValueError, match="`label_noise` must be 0 where there is one class"):
        flip_labels(LabelledTexts(["x", "y"], ["a", "a"]), 0.5, 0)


def test_class_indices_stay_indices() -> None:
    noisy = flip_labels(LabelledTexts(["x"] * 8, [0, 1, 2, 0, 1, 2, 0, 1]), 0.5, 0)
    assert all(isinstance(label, int) for label in noisy.labels)
