"""Unlabelled texts at construction: what is left out, and what is refused."""

from __future__ import annotations

import logging

import pytest

from mixup_hf import errors
from mixup_hf.judging.leaks import LeakError
from mixup_hf.training.unlabeled import checked_unlabeled

TRAIN = ["the bank has a new price", "a film star"]
EVAL = ["who is the minister of law in the city court"]
NEAR = "Who is the minister of law in the city courts?"


def test_training_texts_repetitions_and_evaluation_texts_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = ["a new song", "A film star!", NEAR, "a new  song.", "old music"]
    with caplog.at_level(logging.INFO):
        assert checked_unlabeled(given, TRAIN, EVAL, "drop") == ["a new song", "old music"]
    assert "3 of 5 unlabelled texts are left out: 2 repeat" in caplog.text
    assert "1 nearly equal" in caplog.text


def test_leaks_says_what_happens_to_evaluation_texts() -> None:
    assert checked_unlabeled(["old music", NEAR], TRAIN, EVAL, "off") == ["old music", NEAR]
    with pytest.raises(LeakError, match="`leaks: drop`"):
        checked_unlabeled(["old music", NEAR], TRAIN, EVAL, "fail")


def test_none_given_and_none_left_are_told_apart() -> None:
    assert checked_unlabeled([], TRAIN, EVAL, "drop") == []
    with pytest.raises(errors.InvalidInput, match="None of the 2 unlabelled texts is left"):
        checked_unlabeled([NEAR, TRAIN[0]], TRAIN, EVAL, "drop")


def test_texts_and_pairs_do_not_stand_side_by_side() -> None:
    with pytest.raises(errors.InvalidInput, match="hold texts, as the training set does"):
        checked_unlabeled([("a", "b")], TRAIN, [], "drop")
    with pytest.raises(errors.InvalidInput, match="hold pairs of texts"):
        checked_unlabeled(["a"], ["a\x1eb"], [], "drop")
    with pytest.raises(errors.InvalidInput, match="empty or whitespace"):
        checked_unlabeled(["a", " "], TRAIN, [], "drop")
