"""The tab in which rows are generated, kept, rejected, edited and written to a file."""

from __future__ import annotations

from typing import Any

from mixup_hf import errors
from mixup_hf.data.targets import MULTI_LABEL, REGRESSION
from mixup_hf.explorer import markup
from mixup_hf.explorer.labelled_set import LabelledSet
from mixup_hf.explorer.review import Draft, Review
from mixup_hf.explorer.session import Session
from mixup_hf.explorer.wiring import Values, Wiring, html, status_line

_LEAD = (
    "Sentences are generated from your rows and labelled, as in training. Keep those you like, "
    "mend a text or a label, reject the rest, and write what you kept to a file to train on."
)
_LONGEST = 2000  # characters of a text
_IN_A_LIST = 90  # of a text in the list of rows
_MARKS = {"open": "", "kept": "✓ ", "rejected": "✗ "}


def review_tab(gr: Any, page: Any, tab: Any, session: Session, review: Review) -> None:
    """Lay the tab out and connect it.

    Args:
        gr: Gradio.
        page: The page it is part of.
        tab: The tab itself.
        session: Where kept rows are written to.
        review: The rows.
    """
    data = review.data
    html(gr, markup.lead(_LEAD))
    with gr.Row(equal_height=True):
        count = gr.Slider(1, 64, 8, step=1, label="Rows to generate", elem_id="mx-count")
        start = gr.Button("Generate rows", variant="primary", elem_id="mx-generate")
    status = status_line(gr, "mx-review-status")
    with gr.Column(visible=False) as card:
        heading = html(gr, elem_id="mx-heading")
        text = gr.Textbox(label="Text", lines=2, max_length=_LONGEST, elem_id="mx-text")
        label = _label_field(gr, data)
        with gr.Row():
            buttons = [_button(gr, *each) for each in _BUTTONS]
        context = html(gr, elem_classes="mx-context")
        rows = gr.Radio([], label="All rows", elem_id="mx-rows")
        export = gr.Button("Write the kept rows to a file", elem_id="mx-export")
        written = status_line(gr, "mx-export-status")  # where it is seen on a phone too
        file = gr.DownloadButton("Download the file", visible=False, elem_id="mx-download")
    place = gr.State(0)
    shown = [card, heading, text, label, context, rows, place]
    handlers = _Handlers(gr, session, review)
    wire = Wiring(gr, status)
    fitted = "; the first ones take longer, because a committee is fitted"
    busy = f"Rows are generated{fitted if data.has_committee else ''} …"
    wire.on(start.click, handlers.generate, [count], shown, busy=busy)
    current = [place, text, label]
    steps = (handlers.keep, handlers.reject, handlers.back, handlers.forth)
    for button, step in zip(buttons, steps, strict=True):
        wire.on(button.click, step, current, shown)
    wire.on(rows.input, handlers.jump, [*current, rows], shown)
    Wiring(gr, written).on(export.click, handlers.write, current, [*shown, file], says=True)
    wire.on(page.load, lambda: handlers.show(0), [], shown)
    wire.on(tab.select, handlers.refresh, current, shown)


_BUTTONS = (
    ("Keep", "primary", "mx-keep"),
    ("Reject", "stop", "mx-reject"),
    ("Previous", "secondary", "mx-back"),
    ("Next", "secondary", "mx-next"),
)


def _button(gr: Any, text: str, variant: str, name: str) -> Any:
    return gr.Button(text, variant=variant, elem_id=name, min_width=120)


class _Handlers:
    """What the buttons do. Each returns the values of the card: the row shown now.

    Edits are saved when a row is kept or left; a rejected row stays as it was generated.
    """

    def __init__(self, gr: Any, session: Session, review: Review) -> None:
        self.gr, self.session, self.review, self.data = gr, session, review, review.data

    def show(self, at: int) -> Values:
        """Show a row."""
        gr, drafts = self.gr, self.review.drafts
        if not drafts:
            return (gr.update(visible=False), *[gr.skip() for _ in range(5)], 0)
        draft = drafts[at]
        listed = [(_listed(each, number, self.data), number) for number, each in enumerate(drafts)]
        return (
            gr.update(visible=True),
            markup.row_heading(self.review, at),
            draft.row.text,
            _label_update(gr, draft, self.data),
            markup.row_context(draft, self.data),
            gr.update(choices=listed, value=at),
            at,
        )

    def generate(self, count: float) -> Values:
        """Generate rows and show the first of them."""
        return self.show(self.review.sample(int(count)))

    def keep(self, at: int, text: str, label: Any) -> Values:
        """Keep the row as it is now, and show the next open one."""
        self._save(at, text, label)
        self.review.decide(at, "kept")
        return self.show(self.review.next_open(at))

    def reject(self, at: int, text: str, label: Any) -> Values:
        """Reject the row, and show the next open one."""
        self.review.decide(at, "rejected")
        return self.show(self.review.next_open(at))

    def back(self, at: int, text: str, label: Any) -> Values:
        """Show the row before."""
        return self.jump(at, text, label, (at - 1) % len(self.review.drafts))

    def forth(self, at: int, text: str, label: Any) -> Values:
        """Show the row after."""
        return self.jump(at, text, label, (at + 1) % len(self.review.drafts))

    def jump(self, at: int, text: str, label: Any, to: int) -> Values:
        """Show any row."""
        self._save(at, text, label)
        return self.show(int(to))

    def refresh(self, at: int, text: str, label: Any) -> Values:
        """Show the row again: the tab with the map may have added rows."""
        if not self.review.drafts or not text.strip():
            return self.show(at)
        return self.jump(at, text, label, at)

    def write(self, at: int, text: str, label: Any) -> Values:
        """Write the kept rows."""
        self._save(at, text, label)
        path = self.session.output
        count = self.review.export(path)
        rows = "1 row" if count == 1 else f"{count} rows"
        said = f"{rows} written to {path}. Train with OfflineMixup({str(path)!r})."
        return (
            *self.show(at),
            self.gr.update(visible=True, value=str(path)),
            markup.note(said),
        )

    def _save(self, at: int, text: str, label: Any) -> None:
        if at >= len(self.review.drafts):
            raise errors.InvalidState("There are no rows. Generate some first.")
        unchanged = label == _label_value(self.review.drafts[at], self.data)
        self.review.edit(at, text, None if unchanged else label)


def _label_field(gr: Any, data: LabelledSet) -> Any:
    if data.problem_type == REGRESSION:
        return gr.Textbox(label="Label, a number", elem_id="mx-label")
    several = data.problem_type == MULTI_LABEL
    return gr.Dropdown(data.names, label="Label", multiselect=several, elem_id="mx-label")


def _label_value(draft: Draft, data: LabelledSet) -> Any:
    """What the field of the label says before anyone changes it."""
    label = draft.row.label
    if data.problem_type == REGRESSION:
        return data.words_of(label)
    if data.problem_type == MULTI_LABEL:
        return [name for name, share in zip(data.names, label, strict=True) if share >= 0.5]
    return ""  # as it is: soft


def _label_update(gr: Any, draft: Draft, data: LabelledSet) -> Any:
    value = _label_value(draft, data)
    if data.problem_type in (REGRESSION, MULTI_LABEL):
        return gr.update(value=value)
    now = f"as it is: {markup.soft_words(draft.row.label, data)}"
    choices = [(now, ""), *((name, name) for name in data.names)]
    return gr.update(choices=choices, value=value)


def _listed(draft: Draft, number: int, data: LabelledSet) -> str:
    text = draft.row.text
    short = text if len(text) <= _IN_A_LIST else f"{text[:_IN_A_LIST]}…"
    return f"{_MARKS[draft.decision]}{number + 1}. {short} ({data.words_of(draft.row.label)})"
