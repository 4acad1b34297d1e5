"""The plots of a report, as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mixup_hf import errors
from mixup_hf.intervals import Rate

LEFT_OUT = (
    "Plots are left out, because matplotlib is not installed: `pip install 'mixup_hf[report]'`."
)
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")


def available() -> bool:
    """Whether plots can be drawn."""
    try:
        return find_spec("matplotlib") is not None
    except ValueError:  # import blocked: the entry in `sys.modules` is None
        return False


def rates(groups: Mapping[str, Rate], label: str) -> str:
    """Plot shares with their intervals, one point per group."""
    figure, axis = _figure()
    shares = [rate.share for rate in groups.values()]
    below = [rate.share - rate.low for rate in groups.values()]
    above = [rate.high - rate.share for rate in groups.values()]
    axis.errorbar(list(groups), shares, yerr=(below, above), fmt="o", color=_COLOURS[0], capsize=3)
    axis.set(xlabel=label, ylabel="share, 95 % interval", ylim=(0, None))
    axis.tick_params(axis="x", rotation=30)
    return _svg(figure)


def histogram(values: Sequence[float], label: str) -> str:
    """Plot a histogram of values."""
    figure, axis = _figure()
    axis.hist(values, bins=20, color=_COLOURS[0])
    axis.set(xlabel=label, ylabel="sentences")
    return _svg(figure)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], label: str) -> str:
    """Plot lines of (step, value) points."""
    figure, axis = _figure()
    for (name, points), colour in zip(lines.items(), _COLOURS, strict=False):
        axis.plot(*zip(*points, strict=True), color=colour, label=name, marker=".")
    axis.set(xlabel="step", ylabel=label)
    axis.legend()
    return _svg(figure)


def scatter(
    points: np.ndarray, classes: Sequence[str], made: Sequence[bool], names: Sequence[str]
) -> str:
    """Plot real rows as rings and generated rows as dots, colored by class."""
    figure, axis = _figure(height=4.2)
    for name, colour in zip(names, _COLOURS * (1 + len(names) // len(_COLOURS)), strict=False):
        for kind, marks in ((False, {"facecolors": "none"}), (True, {"s": 9, "alpha": 0.7})):
            here = np.array([c == name and m is kind for c, m in zip(classes, made, strict=True)])
            style: dict[str, Any] = {"edgecolors": colour, "label": name if kind else None}
            if kind:
                style = {"color": colour, "label": name}
            axis.scatter(*points[here].T, **(marks | style))
    axis.set(xticks=[], yticks=[])
    axis.legend(fontsize="small")
    return _svg(figure)


def differences(arms: Mapping[str, tuple[float, float, float]], label: str) -> str:
    """Plot differences with their intervals, one line per arm, relative to zero."""
    return _svg(_differences(arms, label))


def save_differences(
    arms: Mapping[str, tuple[float, float, float]], label: str, file: str | Path
) -> None:
    """Write the plot of `differences` to a file, in the format of its suffix."""
    _differences(arms, label).savefig(file, dpi=150)


def _differences(arms: Mapping[str, tuple[float, float, float]], label: str) -> Any:
    figure, axis = _figure(height=0.5 + 0.35 * len(arms))
    names = list(arms)[::-1]
    middle = np.array([arms[name] for name in names])
    reach = (middle[:, 0] - middle[:, 1], middle[:, 2] - middle[:, 0])
    axis.errorbar(middle[:, 0], names, xerr=reach, fmt="o", color=_COLOURS[0], capsize=3)
    axis.axvline(0, color="0.6", linewidth=1)
    axis.set(xlabel=label)
    return figure


def _figure(height: float = 3.0) -> tuple[Any, Any]:
    module = errors.optional("matplotlib.figure", "report", "A plot")
    figure = module.Figure(figsize=(6, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    stream = io.StringIO()
    # Keep text as text (small and searchable), and use the same ids in every run.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mixup_hf"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    drawn = stream.getvalue()
    return drawn[drawn.index("<svg") :]
