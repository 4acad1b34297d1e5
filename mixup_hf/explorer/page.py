"""The page: its three tabs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixup_hf import errors
from mixup_hf.data.targets import REGRESSION
from mixup_hf.explorer import markup
from mixup_hf.explorer.labelled_set import LabelledSet
from mixup_hf.explorer.mix_tab import mix_tab
from mixup_hf.explorer.review_tab import review_tab
from mixup_hf.explorer.session import Session
from mixup_hf.explorer.wiring import Values, Wiring, html, status_line

TITLE = "mixup-hf explore"
_WITHOUT_DATA = (
    "This needs your own rows. Stop the explorer and start it with a file of texts and labels:\n\n"
    "```bash\nmixup-hf explore train.jsonl --label-column label\n```\n\n"
    "csv, jsonl and parquet files and data sets of the Hub are read as in the other commands."
)


def build(session: Session) -> Any:
    """The page of a session, a `gradio.Blocks`.

    Raises:
        MissingPackage: Gradio is not installed.
    """
    gr = errors.optional("gradio", "explore", "The explorer")
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        html(gr, markup.header(session.inverter.name, _described(session.data)))
        with gr.Tab("Mix two texts"):
            mix_tab(gr, page, session)
        with gr.Tab("Your data set") as tab:
            if session.review is None:
                gr.Markdown(_WITHOUT_DATA)
            else:
                review_tab(gr, page, tab, session, session.review)
        with gr.Tab("Map") as tab:
            if session.data is None:
                gr.Markdown(_WITHOUT_DATA)
            else:
                _map_tab(gr, tab, session)
    return page


def _map_tab(gr: Any, tab: Any, session: Session) -> None:
    data, review = session.data, session.review
    assert data is not None and review is not None
    more = gr.Button("Generate 32 more rows", elem_id="mx-more")
    status = status_line(gr, "mx-map-status")
    view = html(gr)

    def draw() -> Values:
        return (markup.map_view(session.map(), data),)

    def generate() -> Values:
        review.sample(32)
        return draw()

    wire = Wiring(gr, status)
    wire.on(tab.select, draw, [], [view], busy="The rows are embedded …")
    wire.on(more.click, generate, [], [view], busy="Rows are generated …")


def _described(data: LabelledSet | None) -> str:
    if data is None:
        return "no data set: start with a file of texts and labels to see votes"
    source = str(data.data["data"])
    if Path(source).is_file():
        source = Path(source).name  # its folder takes three lines on a phone
    if data.problem_type == REGRESSION:
        return f"{source}: {len(data.texts)} rows with numbers"
    return f"{source}: {len(data.texts)} rows, {len(data.names)} classes"
