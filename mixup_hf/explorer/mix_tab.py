"""The tab in which two texts are mixed, with a slider for the ratio."""

from __future__ import annotations

from typing import Any

from mixup_hf import errors
from mixup_hf.explorer import markup
from mixup_hf.explorer.labelled_set import Votes
from mixup_hf.explorer.session import Session
from mixup_hf.explorer.sweep import Sweep
from mixup_hf.explorer.wiring import Values, Wiring, html, status_line

# All ratios are on the page, and the browser shows the one the slider is at: no server is asked.
_SHOW = "(lam) => { window.mixupExplorer.show(lam); return []; }"
_LONGEST = 2000  # characters of a text
_DECODING = "The two texts are mixed in every ratio and decoded …"


def mix_tab(gr: Any, page: Any, session: Session) -> None:
    """Lay the tab out and connect it.

    Args:
        gr: Gradio.
        page: The page it is part of.
        session: Decodes and votes.
    """
    first, second = session.texts(0)
    with gr.Row():
        b = _text_box(gr, "Text at λ = 0", second, "mx-b")
        a = _text_box(gr, "Text at λ = 1", first, "mx-a")
    with gr.Row(equal_height=True):
        start = gr.Button("Mix", variant="primary", elem_id="mx-mix", min_width=120)
        has_data = session.data is not None
        others = gr.Button("Two of my rows", visible=has_data, elem_id="mx-others", min_width=120)
        asks = session.data is not None and session.data.has_committee
        ask = gr.Button("Ask the committee", visible=asks, elem_id="mx-ask", min_width=120)
    with gr.Accordion("Options", open=False):
        count = gr.Slider(1, 8, 3, step=1, label="Candidates for each ratio")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    status = status_line(gr, "mx-mix-status", markup.busy(_DECODING))
    info = "How much the mix takes from the text at λ = 1. Move it: the sentence follows."
    lam = gr.Slider(0, 1, 0.5, step=0.1, label="Ratio λ", info=info, elem_id="mx-lam")
    view = html(gr, elem_id="mx-mix-view")
    found, number = gr.State(None), gr.State(0)
    handlers, wire = _Handlers(gr, session), Wiring(gr, status)
    options = [a, b, count, seed]

    def decode_at(event: Any) -> None:
        decoded = wire.on(event, handlers.decode, options, [found, view], busy=_DECODING)
        shown = decoded.then(None, [lam], None, js=_SHOW)
        voted = wire.on(shown.then, handlers.vote, [found], [view], says=True)
        voted.then(None, [lam], None, js=_SHOW)

    for event in (start.click, a.submit, b.submit, page.load):
        decode_at(event)
    drawn = wire.on(others.click, handlers.draw, [number], [a, b, number])
    decode_at(drawn.then)
    busy = "The committee is fitted once, which can take a minute or two; then it votes …"
    asked = wire.on(ask.click, handlers.fit, [found], [view], busy=busy)
    asked.then(None, [lam], None, js=_SHOW)
    lam.change(None, [lam], None, js=_SHOW)


class _Handlers:
    """What the buttons do."""

    def __init__(self, gr: Any, session: Session) -> None:
        self.gr, self.session = gr, session
        self.names = [] if session.data is None else session.data.names
        self.committee = session.data is not None and session.data.has_committee

    def decode(self, first: str, second: str, candidates: float, seed: float | None) -> Values:
        """Decode every ratio; votes come afterwards."""
        made = self.session.sweep(first, second, int(candidates), int(seed or 0))
        return made, markup.sweep_view(made, Votes(), self.names, waiting=True)

    def vote(self, made: Any) -> Values:
        """Add votes; the status stays as it is, for it may say why nothing was decoded."""
        if made is None:
            return self.gr.skip(), self.gr.skip()
        votes = self.session.votes(made.texts)
        return self._view(made, votes), self.gr.skip()

    def fit(self, made: Any) -> Values:
        """Add votes of the committee, which is fitted if it has not been."""
        if made is None:
            raise errors.InvalidState("There is nothing to vote on yet. Press Mix first.")
        return (self._view(made, self.session.votes(made.texts, fit=True)),)

    def draw(self, number: int) -> Values:
        """Two other rows of the data set."""
        first, second = self.session.texts(number + 1)
        return first, second, number + 1

    def _view(self, made: Sweep, votes: Votes) -> str:
        return markup.sweep_view(made, votes, self.names, committee=self.committee)


def _text_box(gr: Any, label: str, value: str, name: str) -> Any:
    return gr.Textbox(value, label=label, lines=2, max_length=_LONGEST, elem_id=name, min_width=300)
