"""The gate: every policy delivers the count, and rows say what was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from judging_data import ROW
from tiny import FakeEncoder, make_producer
from torch import Tensor

from mixup_hf import MixedExample
from mixup_hf.generation.once import Once
from mixup_hf.intervals import wilson
from mixup_hf.judging import POLICIES, Gate, intrusion_report
from mixup_hf.judging.events import Finding
from mixup_hf.judging.leaks import LeakGuard
from mixup_hf.judging.report import events_line

PARENTS = ("the first parent", "the second")
TARGETS = torch.eye(3)[[0, 1]]
OPINIONS = {"it": (0.0, 0.0, 1.0)}
JUDGED = torch.tensor([0.0, 0.0, 1.0])


class Marked:
    """A detector that finds in a sentence the events it names."""

    def inspect(self, rows: Sequence[MixedExample], embeddings: Tensor) -> list[Finding]:
        names = ("conflict", "collapse", "degenerate")
        return [
            Finding(
                tuple(name for name in names if name in row.text), {"it": (0.0, 0.0, 1.0)}, JUDGED
            )
            for row in rows
        ]


def review(
    policy: str, texts: Sequence[str], redrawn: Sequence[str] = (), **settings: Any
) -> tuple[list[MixedExample], list[tuple[list[int], int, str]]]:
    """What the gate makes of rows with `texts` when all redraws say `redrawn[attempt - 1]`."""
    calls: list[tuple[list[int], int, str]] = []

    def redraw(places: list[int], attempt: int, how: str) -> list[MixedExample]:
        calls.append((places, attempt, how))
        return [replace(ROW, text=redrawn[attempt - 1], index=at) for at in places]

    gate = Gate(Marked(), PARENTS, TARGETS, FakeEncoder(), policy=policy, **settings)
    rows = [replace(ROW, text=text, index=at) for at, text in enumerate(texts)]
    return gate.review(rows, redraw), calls


@pytest.mark.parametrize("policy", POLICIES)
def test_good_rows_pass_as_they_are(policy: str) -> None:
    (row,), calls = review(policy, ["good"])
    assert not calls
    assert row == replace(ROW, text="good", judges={"it": (0.0, 0.0, 1.0)})


@pytest.mark.parametrize("policy", POLICIES)
def test_as_many_rows_come_out_as_went_in(policy: str) -> None:
    rows, _ = review(policy, ["good", "conflict", "degenerate", "good"], ["conflict"] * 9)
    assert [row.index for row in rows] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("policy", "how"), [("drop", "pair"), ("resample", "ratio"), ("local", "near")]
)
def test_a_row_is_made_anew_until_it_is_good(policy: str, how: str) -> None:
    rows, calls = review(policy, ["good", "conflict"], ["conflict", "fine"])
    assert calls == [([1], 1, how), ([1], 2, how)]
    assert rows[1].text == "fine"
    assert (rows[1].events, rows[1].attempts) == (("conflict",), 3)
    assert rows[1].mitigation == f"redrawn:{how}"


def test_where_the_redraws_are_used_up_the_parent_stands_in() -> None:
    rows, calls = review("drop", ["conflict"], ["conflict"] * 2, max_redraws=2)
    assert len(calls) == 2
    assert rows[0].text == "the first parent"
    assert rows[0].label == (1.0, 0.0, 0.0)
    assert (rows[0].lam, rows[0].shares, rows[0].mitigation) == (1.0, (1.0, 0.0), "parent")
    assert rows[0].judges == {}  # their opinions were of the discarded sentence
    assert rows[0].events == ("conflict",)


def test_keep_records_and_changes_nothing() -> None:
    rows, calls = review("keep", ["conflict", "degenerate"])
    assert not calls
    assert [row.events for row in rows] == [("conflict",), ("degenerate",)]
    assert [row.mitigation for row in rows] == ["none", "none"]
    assert rows[0].label == ROW.label


def test_keep_changes_no_label_after_a_leak_either() -> None:
    guard = LeakGuard(["conflict of the evaluation texts"])
    leaked = "conflict of the evaluation texts"
    (row,), calls = review("keep", [leaked], ["a conflict of its own"], guard=guard)
    assert calls == [([0], 1, "pair")]
    assert (row.label, row.mitigation, row.attempts) == (ROW.label, "redrawn:pair", 2)


@pytest.mark.parametrize(
    ("policy", "label", "mitigation"),
    [
        ("relabel", (0.0, 0.0, 1.0), "relabelled"),
        ("blend", (0.25, 0.25, 0.5), "blended"),
        ("weight", ROW.label, "weighted"),
    ],
)
def test_labels_are_mended(policy: str, label: tuple[float, ...], mitigation: str) -> None:
    (row,), calls = review(policy, ["conflict"])
    assert not calls
    assert (row.label, row.mitigation) == (label, mitigation)
    assert row.weight == (0.0 if policy == "weight" else 1.0)  # they share nothing


@pytest.mark.parametrize("policy", ["relabel", "blend", "weight"])
@pytest.mark.parametrize("event", ["degenerate", "collapse"])
def test_what_no_label_mends_is_made_anew(policy: str, event: str) -> None:
    (row,), calls = review(policy, [event], ["fine"])
    assert calls == [([0], 1, "pair")]
    assert row.text == "fine"


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="`intrusion` must be one of 'keep', 'drop'"):
        Gate(Marked(), PARENTS, TARGETS, FakeEncoder(), policy="ignore")


class DropsOdd:
    """A gate that has the rows at odd places made anew, once."""

    def __init__(self, how: str) -> None:
        self.how = how

    def review(self, rows: Sequence[MixedExample], redraw: Any) -> list[MixedExample]:
        places = list(range(1, len(rows), 2))
        passed = list(rows)
        for at, row in zip(places, redraw(places, 1, self.how), strict=True):
            passed[at] = row
        return passed


@pytest.mark.parametrize("how", ["pair", "ratio"])
def test_a_producer_makes_rows_anew_for_its_gate(how: str) -> None:
    plain, gated = make_producer(), make_producer()
    gated.gate = Once(lambda: DropsOdd(how))
    before, after = plain.produce(0, 10), gated.produce(0, 10)
    assert [row.index for row in after] == list(range(10))
    for place, (one, two) in enumerate(zip(before, after, strict=True)):
        if place % 4 in (1, 3):  # chunks hold four rows
            assert two.parents[0] == one.parents[0]
            assert two.lam != one.lam
            assert (two.parents == one.parents) or how == "pair"
        else:
            assert two == one
    again = make_producer()
    again.gate = Once(lambda: DropsOdd(how))
    assert again.produce(0, 10) == after


def test_a_report_counts_first_attempts_by_ratio() -> None:
    rows = [
        replace(ROW, events=("conflict",), shares=(0.55, 0.45)),
        replace(ROW, shares=(0.52, 0.48), mitigation="redrawn:pair"),
        replace(ROW, events=("conflict", "collapse"), shares=(0.05, 0.95)),
    ]
    report = intrusion_report(rows, torch.eye(3))
    assert (report.overall.count, report.overall.of) == (2, 3)
    assert report.by_event["conflict"].count == 2
    assert report.by_event["collapse"].count == 1
    assert {key: (rate.count, rate.of) for key, rate in report.by_lam.items()} == {
        "0.5-0.6": (1, 2),
        "0.9-1.0": (1, 1),
    }
    assert report.by_distance["cosine 0.0-0.2"].of == 3
    assert report.mitigations == {"none": 2, "redrawn:pair": 1}


def test_a_line_about_rows_names_events_and_actions() -> None:
    rows = [
        replace(ROW, events=("conflict",), mitigation="redrawn:pair"),
        replace(ROW, events=("conflict", "leak"), mitigation="parent"),
        ROW,
    ]
    assert events_line(rows) == (
        "2 of 3 generated sentences were doubtful at first (conflict 2, leak 1). "
        "Actions: none 1, parent 1, redrawn:pair 1. "
        "Copies of training rows, every redraw being doubtful too: 1"
    )
    assert events_line([ROW]) is None


def test_wilson_intervals_are_those_of_the_tables() -> None:
    rate = wilson(8, 40)
    assert (rate.low, rate.high) == (
        pytest.approx(0.1050, abs=1e-4),
        pytest.approx(0.3476, abs=1e-4),
    )
    assert wilson(0, 0).share == 0
    for of in range(1, 400):  # rounding must not put an end beyond the share: plots refuse it
        none, all_ = wilson(0, of), wilson(of, of)
        assert none.low == 0 < none.high and all_.low < 1 == all_.high
    assert str(wilson(1, 2)).startswith("50.0% [")
