"""What all plots of a report share: size, style, and SVG that follows the page's colours."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import Any

from mixup_hf import errors

LEFT_OUT = (
    "Plots are left out, because matplotlib is not installed: `pip install 'mixup_hf[report]'`."
)
# Paul Tol's "bright", which colour-blind readers can tell apart; the last one is for the rest.
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
INK, LINES = "#222222", "#d0d0d0"
_WIDTH = 4.0  # inches: 10 points are 11 to 12 px when the plot is scaled to the width of a phone
# A page has light and dark colours under these names, see report.html.j2.
_ON_A_PAGE = {colour: f"var(--c{at}, {colour})" for at, colour in enumerate(COLOURS)} | {
    INK: "currentColor",
    LINES: f"var(--line, {LINES})",
}


def available() -> bool:
    """Whether plots can be drawn."""
    try:
        return find_spec("matplotlib") is not None
    except ValueError:  # import blocked: the entry in `sys.modules` is None
        return False


def figure(height: float = 2.8, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A matplotlib figure and its axes (one, or an array of them), in the report's style."""
    module = errors.optional("matplotlib.figure", "report", "A plot")
    made = module.Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = made.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(LINES)
        axis.tick_params(color=LINES, labelcolor=INK)
        axis.xaxis.label.set_color(INK)
        axis.yaxis.label.set_color(INK)
        axis.set_axisbelow(True)
    return made, axes[0, 0] if rows == columns == 1 else axes.ravel()


def legend(axis: Any, **settings: Any) -> None:
    """Add a legend without a frame."""
    axis.legend(frameon=False, labelcolor=INK, **settings)


def svg(made: Any) -> str:
    """The figure as inline SVG: text as text, transparent, in the colours of the page."""
    import matplotlib as mpl

    stream = io.StringIO()
    # Keep text as text (small and searchable), and use the same ids in every run.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mixup_hf"}):
        made.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    drawn = stream.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for colour, on_a_page in _ON_A_PAGE.items():
        drawn = drawn.replace(colour, on_a_page)
    return drawn
