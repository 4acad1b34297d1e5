"""The committee of a run: its members, what they say of sentences, and where they disagree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixup_hf.data.targets import REGRESSION, SINGLE_LABEL
from mixup_hf.evaluation.report import drawing, plots
from mixup_hf.evaluation.report.pages import Bar, PlotOf, Section, TableOf, VotesOf
from mixup_hf.intervals import Rate, wilson

_TOGETHER = "together"
_SHOWN = 6  # sentences of each list
_REST = len(drawing.COLOURS) - 1  # number of the colour for all other classes
_SMALLEST = 0.005  # share of a class that is drawn


@dataclass(frozen=True)
class Voted:
    """A sentence with the opinions about it.

    Attributes:
        text: The sentence.
        label: Its label (C,).
        votes: Each member's class probabilities (C,), by name.
        names: The classes (C).
    """

    text: str
    label: Sequence[float]
    votes: Mapping[str, Sequence[float]]
    names: Sequence[str]


def committee_section(metrics: Mapping[str, Any], rows: Sequence[Voted]) -> Section:
    """Plots of the committee and its votes; empty without any.

    Args:
        metrics: The content of `metrics.json`.
        rows: The generated rows, in the order they were made.
    """
    kind = metrics.get("problem_type", SINGLE_LABEL)
    figures = metrics.get("committee")
    blocks: list[PlotOf | TableOf | VotesOf] = []
    if figures is not None:
        blocks.append(_members(figures, kind))
    voted = [row for row in rows if row.votes]
    if voted and kind == SINGLE_LABEL:
        blocks += _votes(voted)
    note = (
        ""
        if figures is None
        else (
            f"Fitted on the training rows. Its labels were softened (temperature "
            f"{figures['temperature']:.2f}) until it was no surer of generated sentences than it "
            "is right on held-out rows."
        )
    )
    return Section("The committee that labelled", blocks, note)


def disagreement(votes: Sequence[Sequence[float]]) -> float:
    """How much opinions (K, C) differ: their Jensen-Shannon divergence (Lin 1991), in bits.

    Returns:
        0 where all say the same, at most log2 K.
    """
    each = np.asarray(votes, np.float64)
    each = each / each.sum(1, keepdims=True)
    return _entropy(each.mean(0)) - float(np.mean([_entropy(one) for one in each]))


def agreement(votes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Share of n sentences on whose class two members agree (K, K).

    Args:
        votes: Each of K members' predictions (n, C).
    """
    chosen = np.stack([each.argmax(1) for each in votes.values()])
    shares: np.ndarray = (chosen[:, None] == chosen[None]).mean(2)
    return shares


def _entropy(shares: np.ndarray) -> float:
    held = shares[shares > 0]
    return float(-(held * np.log2(held)).sum())


def _members(figures: Mapping[str, Any], kind: str) -> PlotOf | TableOf:
    count = int(figures["rows"])

    def rate(accuracy: float | None) -> Rate | None:
        if accuracy is None:
            return None
        if kind != SINGLE_LABEL:  # of cells, or R^2: no interval of a proportion of rows
            return Rate(round(accuracy * 1000), 1000, accuracy, accuracy)
        return wilson(round(accuracy * count), count)

    measure = "R²" if kind == REGRESSION else "accuracy"
    rows: list[tuple[str, Rate | None, float | None]] = [
        (name, rate(each["accuracy"]), each["weight"]) for name, each in figures["members"].items()
    ]
    rows.append((_TOGETHER, rate(figures["accuracy"]), None))
    note = (
        f"Held out: {measure} on {count} training rows, none predicted by a model that was trained "
        "on it, with 95 % intervals where it is a share of rows. Weight: exponent of a member's "
        "prediction when all are multiplied."
    )
    if drawing.available():
        return PlotOf("Members", plots.members(rows, f"{measure}, held out"), note)
    cells = [
        (
            name,
            "" if held is None else f"{held.share:.2f}",
            "" if weight is None else f"{weight:.2f}",
        )
        for name, held, weight in rows
    ]
    return TableOf("Members", ("", f"{measure}, held out", "weight"), cells, note)


def _votes(rows: Sequence[Voted]) -> list[PlotOf | TableOf | VotesOf]:
    members = [name for name in rows[0].votes if all(name in row.votes for row in rows)]
    colours = _colours(rows)
    blocks: list[PlotOf | TableOf | VotesOf] = []
    even = np.linspace(0, len(rows) - 1, min(_SHOWN, len(rows))).astype(int)
    note = "Every so many rows, none picked. The top bar is the label trained on."
    if len(members) > 1:
        held = {name: np.array([row.votes[name] for row in rows]) for name in members}
        shares = agreement(held)
        if drawing.available():
            grid = plots.matrix(members, shares)
            blocks.append(PlotOf("Where members agree", grid, _agreement_in_words(held)))
    blocks.append(_shown("Votes", note, [rows[at] for at in even], members, colours))
    if len(members) > 1:
        gaps = [disagreement([row.votes[name] for name in members]) for row in rows]
        worst = [rows[at] for at in np.argsort(gaps, kind="stable")[::-1][:_SHOWN]]
        note = "The sentences of whose class the members' opinions differ most (Jensen-Shannon)."
        blocks.append(_shown("Where members disagree most", note, worst, members, colours))
    return blocks


def _agreement_in_words(held: Mapping[str, np.ndarray]) -> str:
    chosen = np.stack([each.argmax(1) for each in held.values()])
    alike = float((chosen == chosen[0]).all(0).mean())
    return (
        f"Share of the {chosen.shape[1]} generated sentences that two members put into the same "
        f"class. All members agree on {alike:.0%}."
    )


def _colours(rows: Sequence[Voted]) -> dict[str, int]:
    """The colour of each of the commonest classes; all others share the last one."""
    totals: Counter[str] = Counter()
    for row in rows:
        totals.update(dict(zip(row.names, row.label, strict=True)))
    common = [name for name, _ in totals.most_common(_REST)]
    return {name: at for at, name in enumerate(sorted(common))}


def _shown(
    title: str,
    note: str,
    rows: Sequence[Voted],
    members: Sequence[str],
    colours: Mapping[str, int],
) -> VotesOf:
    legend = [(at, name) for name, at in colours.items()]
    if any(name not in colours for name in rows[0].names):
        legend.append((_REST, "other classes"))
    texts = []
    for row in rows:
        opinions = {"label": row.label} | {name: row.votes[name] for name in members}
        texts.append(
            (row.text, [_bar(who, each, row.names, colours) for who, each in opinions.items()])
        )
    return VotesOf(title, note, legend, texts)


def _bar(
    who: str, shares: Sequence[float], names: Sequence[str], colours: Mapping[str, int]
) -> Bar:
    held = sorted(zip(names, shares, strict=True), key=lambda each: colours.get(each[0], _REST))
    parts = [(share, colours.get(name, _REST), name) for name, share in held if share >= _SMALLEST]
    top = int(np.argmax(shares))
    return Bar(who, f"{names[top]} {shares[top]:.2f}", parts)
