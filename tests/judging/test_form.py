"""Form: what training texts hardly ever do is found in generated ones, cut off or made anew."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from judging_data import ROW
from tiny import FakeEncoder

from mixup_hf import MixedExample
from mixup_hf.judging import Gate
from mixup_hf.judging.form import TextCheck, TextForm
from mixup_hf.judging.policies import build_gate
from mixup_hf.judging.sentences import (
    is_loop,
    is_question,
    is_unfinished,
    names,
    novel_names,
    split_sentences,
)

HEADLINES = ["Bank holds rates again", "Arsenal win at Chelsea", "Film star dies in Rome"] * 10
QUESTIONS = ["Where is the bank?", "Who won the cup in Rome?", "What is a share?"] * 10
REVIEWS = ["a fine film, and a long one.", "the plot is thin.", "it moved me."] * 10
NEWS = ["Bank holds rates. The dollar fell on Monday.", "Arsenal win. Chelsea lost again."] * 10


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("She was a VHS copycat.", 1),
        ("The car was loaded. She was a VHS copycat.", 2),
        ("Mr. Smith met J. Jones of the U.S. Army.", 1),
        ("It costs 2.5 million. Why?", 2),
        ('"Go home." He left.', 2),
        ("and so... on it goes", 1),
        ("fine. and long.", 2),
        ("Swine Not? deserves four points", 1),
    ],
)
def test_sentences_are_told_apart(text: str, count: int) -> None:
    assert len(split_sentences(text)) == count
    assert " ".join(split_sentences(text)) == text


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("The growth of 2004, 2005, 2006", True),
        ("Pomeran wins the 2012 Pomeran Cup by beating the Pomeran team", True),
        ("a bank is a bank is a bank", True),
        ("counterfeit spies over fraud fraud", True),
        ("the book of the year and the film of the year", True),
        ("The man and the dog and the cat", False),
        ("Bank holds rates again", False),
        ("a party of eight at the bar on 8/8/2039", False),
    ],
)
def test_loops_are_found(text: str, looping: bool) -> None:
    assert is_loop(text) is looping


@pytest.mark.parametrize(
    ("text", "open_end"),
    [
        ("The EU has recently approved the", True),
        ("They also consider the following:", True),
        ('Signed by "Sony', True),
        ("EU regulators, including the European...", True),
        ("The film is by .", True),
        ("He knows what they are.", False),
        ("What is it for?", False),
        ("Bank holds rates again", False),
    ],
)
def test_what_breaks_off_is_found(text: str, open_end: bool) -> None:
    assert is_unfinished(text) is open_end


def test_a_question_ends_with_its_mark() -> None:
    assert is_question('Did he say "why?"')
    assert not is_question("Who? Nobody.")


def test_names_are_capitalized_words_and_numbers_but_no_first_words() -> None:
    assert names("The dollar fell in New York by 3.") == ["New", "York", "3"]
    assert names("IBM sells. Shares of iPods rise, I think.") == ["IBM", "iPods"]


def test_names_that_a_parent_has_in_any_case_are_not_new() -> None:
    parents = ["apple's share of 2004", "Rome-born Henman"]
    assert novel_names("The shares of Apple and Henman in Rome in 2004", parents) == []
    assert novel_names("The shares of Apple and Roddick in 2005", parents) == ["Roddick", "2005"]


def test_the_form_is_what_nearly_all_texts_have() -> None:
    headlines, questions, reviews, news = map(TextForm.of, (HEADLINES, QUESTIONS, REVIEWS, NEWS))
    assert (headlines.asks, headlines.closed, headlines.lower) == (False, False, False)
    assert (questions.asks, questions.closed, questions.one_sentence) == (True, True, True)
    assert (reviews.asks, reviews.closed, reviews.lower) == (False, True, True)
    assert not news.one_sentence
    assert TextForm.of([*HEADLINES, *QUESTIONS]).asks is None


@pytest.mark.parametrize(
    ("texts", "text", "repaired", "cut", "events"),
    [
        (HEADLINES, "A car was sold.", "A car was sold", False, ()),
        (HEADLINES, "A car was sold. She was a copycat.", "A car was sold", True, ()),
        (HEADLINES, "A car was sold. Did you like it?", "A car was sold", True, ()),
        (HEADLINES, "Which robot is fastest?", "Which robot is fastest?", False, ("other_kind",)),
        (HEADLINES, "The EU may approve the.", "The EU may approve the", False, ("unfinished",)),
        (HEADLINES, "Yes. No.", "Yes. No", False, ("second_sentence", "unfinished")),
        (HEADLINES, "Samsung", "Samsung", False, ("unfinished",)),
        (QUESTIONS, "Where is it? She left.", "Where is it?", True, ()),
        (QUESTIONS, "The bank is in Rome.", "The bank is in Rome.", False, ("other_kind",)),
        (REVIEWS, "It moved Anna", "it moved anna", False, ("unfinished",)),
        (NEWS, "Arsenal win. Bank falls.", "Arsenal win. Bank falls.", False, ()),
        (NEWS, "Rome and Rome, Rome.", "Rome and Rome, Rome.", False, ("loop",)),
    ],
)
def test_a_text_gets_the_form_of_the_training_texts(
    texts: list[str], text: str, repaired: str, cut: bool, events: tuple[str, ...]
) -> None:
    check = TextCheck(texts)
    assert check.repaired(text) == (repaired, cut)
    assert check.events(replace(ROW, text=repaired)) == events


def test_training_texts_have_the_form_of_training_texts() -> None:
    for texts in (HEADLINES, QUESTIONS, REVIEWS, NEWS):
        check = TextCheck(texts)
        for text in texts:
            assert check.repaired(text) == (text, False)
            assert not check.events(replace(ROW, text=text))


def test_each_side_of_a_pair_has_a_form_of_its_own() -> None:
    pairs = [f"{one}\x1e{other}" for one, other in zip(HEADLINES, QUESTIONS, strict=True)]
    check = TextCheck(pairs)
    assert check.asks
    repaired, cut = check.repaired("A car was sold. It was red.\x1eWho sold it?")
    assert (repaired, cut) == ("A car was sold\x1eWho sold it?", True)
    assert check.events(replace(ROW, text="Who sold it?\x1eWho sold it?")) == ("other_kind",)


def review(text: str, *redrawn: str, **settings: object) -> MixedExample:
    def redraw(places: list[int], attempt: int, how: str) -> list[MixedExample]:
        return [replace(ROW, text=redrawn[attempt - 1]) for _ in places]

    gate = Gate(None, HEADLINES, torch.eye(3)[[0] * 30], FakeEncoder(), **settings)  # type: ignore[arg-type]
    (row,) = gate.review([replace(ROW, text=text)], redraw)
    return row


def test_a_second_sentence_costs_no_redraw_and_is_counted() -> None:
    row = review("A car was sold. She was a copycat.", check=TextCheck(HEADLINES))
    assert (row.text, row.attempts, row.mitigation) == ("A car was sold", 1, "cut")
    assert row.events == ("second_sentence",)


def test_what_no_cut_mends_is_made_anew_and_cut_in_turn() -> None:
    row = review("Which is it?", "A car was sold. So it was.", check=TextCheck(HEADLINES))
    assert (row.text, row.attempts) == ("A car was sold", 2)
    assert (row.events, row.mitigation) == (("other_kind",), "redrawn:pair")


def test_with_the_policy_keep_the_form_is_counted_only() -> None:
    row = review("Which is it?", check=TextCheck(HEADLINES), policy="keep")
    assert (row.text, row.events, row.mitigation) == ("Which is it?", ("other_kind",), "none")


@pytest.mark.parametrize("policy", ["keep", "drop", "relabel"])
def test_new_names_are_made_anew_where_they_are_forbidden(policy: str) -> None:
    check = TextCheck(HEADLINES, form=False, names=True)
    row = review("The bank of Oslo", "The bank of Rome", "A bank", check=check, policy=policy)
    assert (row.text, row.attempts, row.events) == ("A bank", 3, ("novel_name",))
    lost = review("In Oslo", "In Oslo", check=check, policy=policy, max_redraws=1)
    assert (lost.text, lost.mitigation) == (HEADLINES[0], "parent")


def test_a_form_needs_a_gate_though_nobody_judges() -> None:
    given = (HEADLINES, torch.zeros(30, 4), torch.eye(3)[[0] * 30], FakeEncoder())
    assert build_gate(*given, policy="off") is None
    gate = build_gate(*given, policy="off", check=TextCheck(HEADLINES))
    assert gate is not None and gate.policy == "keep"
