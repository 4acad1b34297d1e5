"""What the page shows, as HTML. Every text in it is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mixup_hf.data.targets import REGRESSION
from mixup_hf.explorer.labelled_set import LabelledSet, Votes
from mixup_hf.explorer.review import Draft, Review
from mixup_hf.explorer.session import Map
from mixup_hf.explorer.sweep import Stop, Sweep

COLORS = 8  # of classes, in page.css; further classes use them again
_WIDTH, _HEIGHT, _MARGIN = 560, 560, 16
_SHOWN_CLASSES = 3  # of a vote, in words
_SMALL = 0.005


def note(text: str) -> str:
    """A line that says what was done."""
    return f'<p class="mx-note" role="status">{escape(text)}</p>'


def busy(text: str) -> str:
    """A line that says what is being done."""
    return f'<p class="mx-note mx-busy" role="status">{escape(text)}</p>'


def alert(text: str) -> str:
    """What went wrong, and the way out."""
    return f'<p class="mx-alert" role="alert">{escape(text)}</p>'


def lead(text: str) -> str:
    """What a tab is for."""
    return f'<p class="mx-quiet">{escape(text)}</p>'


def header(session_of: str, data: str) -> str:
    """The head of the page."""
    return (
        '<header class="mx-head"><h1>Explorer</h1>'
        f"<p>Aligner <b>{escape(session_of)}</b> · {escape(data)}</p></header>"
    )


def sweep_view(
    found: Sweep,
    votes: Votes,
    names: Sequence[str],
    *,
    waiting: bool = False,
    committee: bool = False,
) -> str:
    """All ratios of a sweep, of which the page shows the one the slider is at.

    Args:
        found: The sweep.
        votes: On the sentence kept at each ratio; may be empty.
        names: The classes.
        waiting: Votes are being collected.
        committee: There is a committee, which can be asked if it has not voted.
    """
    sections = []
    for at, stop in enumerate(found.stops):
        voted = "" if names else _no_votes()
        if names:
            voted = _asked() if waiting else vote_table(votes, at, names)
        if committee and not waiting and not votes.members:
            voted += _unasked()
        sections.append(
            f'<section class="mx-stop" data-at="{at}" data-lam="{stop.lam:.2f}" hidden>'
            f"{_sentence(stop)}{_hints(stop)}{_titled('Votes', voted)}{_candidates(stop)}</section>"
        )
    live = '<p id="mx-live" class="mx-unseen" aria-live="polite"></p>'
    return f'<div id="mx-sweep">{live}{"".join(sections)}</div>'


def vote_table(votes: Votes, at: int, names: Sequence[str]) -> str:
    """Who takes text number `at` for which class, a bar for each voter."""
    lines = [_voter(name, "judge", each[at].tolist(), names) for name, each in votes.judges.items()]
    lines += [
        _voter(name, "member", each[at].tolist(), names) for name, each in votes.members.items()
    ]
    if votes.together is not None:
        lines.append(_voter("committee", "all members", votes.together[at].tolist(), names))
    if not lines:
        return "<p class='mx-quiet'>No votes: nobody votes on labels of this kind.</p>"
    return f'<table class="mx-votes">{"".join(lines)}</table>'


def row_heading(review: Review, place: int) -> str:
    """Which row of how many is shown, and what was decided."""
    draft = review.drafts[place]
    counts = review.counts()
    edited = " · edited" if draft.edited else ""
    return (
        f'<p class="mx-where" role="status">Row <b>{place + 1}</b> of {len(review.drafts)}'
        f' · <span class="mx-{draft.decision}">{draft.decision}</span>{edited}'
        f'<span class="mx-quiet"> — {counts["kept"]} kept, {counts["rejected"]} rejected, '
        f"{counts['open']} open</span></p>"
    )


def row_context(draft: Draft, data: LabelledSet) -> str:
    """Where a generated row comes from: its parents, and who voted how."""
    row = draft.row
    parents = [
        f'<li><span class="mx-share">{share:.2f}</span> {escape(data.texts[parent])} '
        f"{_tag(data, data.mixup.targets[parent].tolist())}</li>"
        for parent, share in zip(row.parents, row.shares, strict=True)
    ]
    lines = [_voter(name, "judge", list(each), data.names) for name, each in row.judges.items()]
    lines += [_voter(name, "member", list(each), data.names) for name, each in row.votes.items()]
    voted = f'<table class="mx-votes">{"".join(lines)}</table>' if lines else ""
    doubts = escape(", ".join(row.events))
    return (
        _titled("Parents, with their weights", f'<ul class="mx-parents">{"".join(parents)}</ul>')
        + _titled("Label", f'<table class="mx-votes">{_label(row.label, data)}</table>')
        + (_titled("Votes", voted) if voted else "")
        + (f"<p class='mx-quiet'>Doubts: {doubts}</p>" if doubts else "")
    )


def soft_words(label: Sequence[float], data: LabelledSet) -> str:
    """A soft label in words, its largest shares first."""
    return _in_words(label, data.names)


def map_view(shown: Map, data: LabelledSet) -> str:
    """The map: rings for real rows, filled diamonds for generated ones."""
    places = {row: number for number, row in enumerate(shown.rows)}
    marks = []
    for number, row in enumerate(shown.rows):
        label = data.mixup.targets[row].tolist()
        x, y = _at(shown.projection.real[number])
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" '
            f"{_data(number, data.texts[row], data, label, 'real row')}/>"
        )
    for number, draft in enumerate(shown.drafts):
        x, y = _at(shown.projection.made[number])
        parents = " ".join(str(places[parent]) for parent in draft.row.parents)
        kind = f"generated row {number + 1}, λ {draft.row.lam:.2f}, {draft.decision}"
        label, place = list(draft.row.label), len(shown.rows) + number
        marks.append(
            f'<path d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z" data-parents="{parents}" '
            f"{_data(place, draft.row.text, data, label, kind)}/>"
        )
    kept = f"{shown.projection.kept_variance:.0%}"
    return (
        f'<div id="mx-map">{_legend(data)}<div class="mx-plan"><div class="mx-plot">'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" tabindex="0" role="group" '
        f'aria-describedby="mx-how" aria-label="Map of {len(shown.rows)} real and '
        f'{len(shown.drafts)} generated rows">'
        f'<g class="mx-lines"></g>{"".join(marks)}</svg></div>'
        '<div id="mx-read" aria-live="polite"><p id="mx-how" class="mx-quiet">Click a row to read '
        "it. With the keyboard: ← and → go through all rows, ↑ and ↓ through generated ones.</p>"
        f'</div></div><p class="mx-quiet">{len(shown.rows)} of {len(data.texts)} real rows (rings) '
        f"and {len(shown.drafts)} generated rows (diamonds). The first two principal components of "
        f"the real rows' embeddings show {kept} of their variance: rows that look close may not "
        "be.</p></div>"
    )


def _sentence(stop: Stop) -> str:
    best = stop.best
    return (
        f'<p class="mx-sentence">{escape(best.text)}</p>'
        '<div class="mx-scale" aria-hidden="true">'
        f'<i class="mx-asked" style="left:{stop.lam:.1%}"></i>'
        f'<i class="mx-found" style="left:{best.found:.1%}"></i></div>'
        f'<p class="mx-ratio">λ asked <b class="mx-of-asked">{stop.lam:.2f}</b> · λ found after '
        f'the round trip <b class="mx-of-found">{best.found:.2f}</b> · cosine to the mix '
        f"<b>{best.closeness:.2f}</b></p>"
    )


def _hints(stop: Stop) -> str:
    if not stop.hints:
        return ""
    words = "".join(f"<li>{escape(word)}</li>" for word in stop.hints)
    return _titled(
        "Hints: words, and pieces of them, that the LLM is given",
        f'<ul class="mx-words">{words}</ul>',
    )


def _candidates(stop: Stop) -> str:
    if len(stop.candidates) == 1:
        return ""
    cards = []
    for number, each in enumerate(stop.candidates):
        kept = number == stop.chosen
        cards.append(
            f'<li class="{"mx-best" if kept else ""}"><p>{escape(each.text)}</p>'
            f'<p class="mx-quiet">'
            f"λ found {each.found:.2f} · cosine {each.closeness:.2f}{' · kept' if kept else ''}</p>"
            "</li>"
        )
    return _titled("Candidates", f'<ul class="mx-cards">{"".join(cards)}</ul>')


def _titled(title: str, content: str) -> str:
    return f"<h3>{escape(title)}</h3>{content}"


def _no_votes() -> str:
    return (
        "<p class='mx-quiet'>Judges and committee vote once there are labelled rows: "
        "<code>mixup-hf explore train.jsonl</code></p>"
    )


def _asked() -> str:
    return "<p class='mx-quiet'>Votes are being collected …</p>"


def _unasked() -> str:
    return (
        "<p class='mx-quiet'>A judge says which class a sentence looks like. The committee, which "
        "labels generated rows, votes once you press “Ask the committee”.</p>"
    )


def _voter(name: str, what: str, shares: Sequence[float], names: Sequence[str]) -> str:
    """A line of a table of votes."""
    parts = "".join(
        f'<i class="mx-c{at % COLORS}" style="width:{share:.1%}"></i>'
        for at, share in enumerate(shares)
        if share >= _SMALL
    )
    words = "".join(
        f'<span class="mx-class"><i class="mx-c{at % COLORS}" aria-hidden="true"></i>'
        f"{escape(names[at])} {share:.2f}</span> "
        for share, at in _largest(shares)
    )
    return (
        f'<tr><th scope="row">{escape(name)} <small>{escape(what)}</small></th>'
        f'<td><span class="mx-bar" aria-hidden="true">{parts}</span>{words}</td></tr>'
    )


def _largest(shares: Sequence[float]) -> list[tuple[float, int]]:
    """The largest shares and their places, as many as are shown in words."""
    ranked = sorted(zip(shares, range(len(shares)), strict=True), key=lambda each: -each[0])
    return [each for each in ranked if each[0] >= _SMALL][:_SHOWN_CLASSES] or ranked[:1]


def _in_words(shares: Sequence[float], names: Sequence[str]) -> str:
    return " · ".join(f"{names[at]} {share:.2f}" for share, at in _largest(shares))


def _label(label: Sequence[float], data: LabelledSet) -> str:
    if data.problem_type == REGRESSION:
        return f"<tr><td>{label[0]:.3f}</td></tr>"
    return _voter("label", "", label, data.names)


def _tag(data: LabelledSet, label: Sequence[float]) -> str:
    return f'<span class="mx-tag mx-t{_color(data, label)}">{escape(data.words_of(label))}</span>'


def _color(data: LabelledSet, label: Sequence[float]) -> int:
    if data.problem_type == REGRESSION:
        return 0
    return max(range(len(label)), key=list(label).__getitem__) % COLORS


def _at(point: Sequence[float]) -> tuple[float, float]:
    """A place in [0, 1] x [0, 1] on the canvas, whose y grows downwards."""
    return (
        _MARGIN + float(point[0]) * (_WIDTH - 2 * _MARGIN),
        _MARGIN + (1 - float(point[1])) * (_HEIGHT - 2 * _MARGIN),
    )


def _data(number: int, text: str, data: LabelledSet, label: Sequence[float], kind: str) -> str:
    """Attributes of a mark: what is read when it is clicked."""
    words = data.words_of(label) if kind == "real row" else soft_words(label, data)
    return (
        f'class="mx-p mx-k{_color(data, label)}" data-n="{number}" data-text="{escape(text)}" '
        f'data-label="{escape(words)}" data-kind="{escape(kind)}"'
    )


def _legend(data: LabelledSet) -> str:
    if data.problem_type == REGRESSION:
        return ""
    keys = "".join(
        f'<button type="button" class="mx-key" aria-pressed="true" data-k="{at % COLORS}">'
        f'<i class="mx-c{at % COLORS}"></i>{escape(name)}</button>'
        for at, name in enumerate(data.names)
    )
    return f'<div class="mx-legend" role="group" aria-label="Classes shown">{keys}</div>'
