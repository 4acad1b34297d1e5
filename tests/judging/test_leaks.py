"""The leak guard: nothing nearly an evaluation text gets through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from judging_data import ROW
from tiny import WORDS, FakeEncoder, make_inverter, make_rows

from mixup_hf import InversedMixup, MixedExample, MixupConfig
from mixup_hf.judging import Gate
from mixup_hf.judging.leaks import LeakError, LeakGuard, shared_texts

EVAL = [
    "The minister will visit the old city on Monday.",
    "red wine",
    "a film star was born",
    "!!!",
    "😀",
]


@pytest.mark.parametrize(
    ("text", "near"),
    [
        (EVAL[0], EVAL[0]),
        ("the minister will visit the old city on monday", EVAL[0]),
        ("The minister will visit the old city on a Monday.", EVAL[0]),
        ("The minister will not visit the big town on Friday.", None),
        ("Red wine!", "red wine"),
        ("red wines of the old world", None),
        ("", None),
        ("...", None),
        ("!!!", "!!!"),
        ("🔥🔥", None),
        ("😀", "😀"),
    ],
)
def test_near_duplicates_are_found_and_others_are_not(text: str, near: str | None) -> None:
    assert LeakGuard(EVAL).near(text) == near


@given(st.lists(st.sampled_from(WORDS), min_size=6, max_size=20), st.data())
def test_an_evaluation_text_is_found_with_a_letter_changed(words: list[str], data: Any) -> None:
    text = " ".join(words)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + text[at + 1 :]
    guard = LeakGuard([text, "something else altogether"], threshold=0.5)
    assert guard.near(text) == text
    assert guard.near(changed) == text


def test_a_threshold_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="`leak_threshold`"):
        LeakGuard(EVAL, threshold=0)


def gate(**settings: Any) -> Gate:
    parents = ("the first parent", "the second")
    return Gate(
        None, parents, torch.eye(3)[[0, 1]], FakeEncoder(), guard=LeakGuard(EVAL), **settings
    )


@pytest.mark.parametrize("policy", ["keep", "drop", "relabel"])
def test_a_leak_is_made_anew_whatever_the_policy(policy: str) -> None:
    def redraw(places: list[int], attempt: int, how: str) -> list[MixedExample]:
        return [MixedExample(**(vars(ROW) | {"text": "something new"})) for _ in places]

    leaked = MixedExample(**(vars(ROW) | {"text": "Red wine"}))
    rows = gate(policy=policy).review([ROW, leaked], redraw)
    assert [row.text for row in rows] == [ROW.text, "something new"]
    assert rows[1].events == ("leak",)
    assert rows[1].mitigation == "redrawn:pair"
    assert rows[0].events == ()


def test_to_fail_names_the_sentence_and_the_text() -> None:
    leaked = MixedExample(**(vars(ROW) | {"text": "Red wine"}))
    with pytest.raises(LeakError, match="'Red wine' and 'red wine'.*`leaks: drop`"):
        gate(fail_on_leak=True).review([leaked], lambda *_: [])


def test_training_texts_that_are_evaluation_texts_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    texts, labels = make_rows(12)
    assert shared_texts(texts, [texts[3].upper() + "!", "x"]) == [3]
    assert shared_texts(["...", "🔥", "!!!"], ["!!!", "😀"]) == [2]

    def build(leaks: str, evaluated: Sequence[str]) -> InversedMixup:
        config = MixupConfig(leaks=leaks)
        return InversedMixup(make_inverter(), texts, labels, eval_texts=evaluated, config=config)

    with pytest.raises(LeakError, match="1 of 12 training texts are evaluation texts"):
        build("fail", [texts[3]])
    build("off", [texts[3]])
    build("fail", ["something else"])
    assert "evaluation texts too" not in caplog.text
    build("drop", [texts[3]])
    assert "evaluation texts too" in caplog.text


def test_no_generated_row_is_an_evaluation_text() -> None:
    texts, labels = make_rows(12)
    config = MixupConfig(max_new_tokens=6, chunk_size=4, intrusion="off")
    free = InversedMixup(make_inverter(), texts, labels, config=config).generate(8)
    banned = [row.text for row in free]
    guarded = InversedMixup(make_inverter(), texts, labels, eval_texts=banned, config=config)
    rows = guarded.generate(8)
    assert len(rows) == 8
    assert not {row.text for row in rows} & set(banned)
    assert all(row.events == ("leak",) for row in rows)
