"""The plots of a report, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixup_hf.evaluation.report.drawing import COLOURS, INK, LINES, figure, legend, svg
from mixup_hf.intervals import Rate

UNKNOWN = "training rows"  # the class of rows in a scatter plot of which no more is known
_OURS, _OTHERS = COLOURS[0], COLOURS[-1]


def rates(groups: Mapping[str, Rate], label: str) -> str:
    """Plot shares with their intervals, one point per group."""
    made, axis = figure()
    shares = [rate.share for rate in groups.values()]
    below = [rate.share - rate.low for rate in groups.values()]
    above = [rate.high - rate.share for rate in groups.values()]
    axis.errorbar(list(groups), shares, yerr=(below, above), fmt="o", color=_OURS, capsize=3)
    axis.set(xlabel=label, ylabel="share, 95 % interval", ylim=(0, None))
    axis.tick_params(axis="x", rotation=30)
    axis.yaxis.set_major_formatter(_percent)
    axis.grid(axis="y", color=LINES, linewidth=0.6)
    return svg(made)


def histogram(values: Sequence[float], label: str) -> str:
    """Plot a histogram of values."""
    made, axis = figure()
    axis.hist(values, bins=20, color=_OURS, rwidth=0.9)
    axis.set(xlabel=label, ylabel="sentences")
    return svg(made)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], label: str) -> str:
    """Plot lines of (step, value) points."""
    made, axis = figure()
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        axis.plot(*zip(*points, strict=True), color=colour, label=name, marker=".", markersize=4)
    axis.set(xlabel="step", ylabel=label)
    axis.grid(axis="y", color=LINES, linewidth=0.6)
    legend(axis, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return svg(made)


def shares_over_steps(shares: Sequence[tuple[float, float]]) -> str:
    """Plot the share of generated rows over the steps.

    Args:
        shares: (step, share) of each log line: the share of all rows since the line before.
    """
    made, axis = figure(height=2.4)
    steps, heights = [0.0, *(step for step, _ in shares)], [share for _, share in shares]
    axis.stairs(heights, steps, fill=True, color=_OURS, alpha=0.35)
    axis.stairs(heights, steps, color=_OURS, linewidth=1.8)
    top = max(0.5, *heights)
    axis.set(xlabel="step", ylabel="generated rows", xlim=(0, steps[-1]), ylim=(0, top * 1.05))
    axis.yaxis.set_major_formatter(_percent)
    axis.grid(axis="y", color=LINES, linewidth=0.6)
    return svg(made)


def side_by_side(
    panels: Mapping[str, Mapping[str, tuple[float, float | None, float | None]]],
) -> str:
    """Plot two or more runs beside each other, a panel for each measure.

    Args:
        panels: For each measure, the runs' value with the bounds of its interval, or None.
    """
    count = max(len(runs) for runs in panels.values())
    made, axes = figure(height=len(panels) * (0.55 + 0.3 * count), rows=len(panels))
    for axis, (measure, runs) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        reach = 0.0
        for at, (value, low, high) in enumerate(runs.values()):
            axis.barh(at, value, height=0.7, color=_OURS if at == 0 else _OTHERS)
            if low is not None and high is not None:
                bounds = [[value - low], [high - value]]
                axis.errorbar(value, at, xerr=bounds, color=INK, capsize=3, linewidth=1)
            end = value if high is None else high
            _beside(axis, f" {value:.3f}", end, at)
            reach = max(reach, end)
        axis.set(yticks=range(len(runs)), yticklabels=list(runs), xlim=(0, reach * 1.2 or 1))
        axis.set_title(measure, fontsize="medium", loc="left", color=INK)
        axis.invert_yaxis()
    return svg(made)


def _beside(axis: Any, text: str, end: float, at: int, **style: Any) -> None:
    """Write a figure beside the end of a bar."""
    offset = {"textcoords": "offset points", "va": "center", "color": INK}
    axis.annotate(text, (end, at), (4, 0), **offset, **style)


def parts(counts: Mapping[str, int]) -> str:
    """Plot what a whole number of rows is made of, as one bar."""
    made, axis = figure(height=1.35)
    start = 0
    for (name, count), colour in zip(
        counts.items(), (COLOURS[2], COLOURS[0], COLOURS[3], COLOURS[6]), strict=False
    ):
        axis.barh(0, count, left=start, color=colour, label=f"{name}: {count}")
        start += count
    axis.set(xlim=(0, max(1, start)), yticks=[])
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.set_xticks([])
    legend(axis, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 0), fontsize="medium")
    return svg(made)


def members(rows: Sequence[tuple[str, Rate | None, float | None]], accuracy: str) -> str:
    """Plot the members of a committee: how often each is right, and how much it counts.

    Args:
        rows: For each member, and last for all together: its name, accuracy, and weight.
        accuracy: What the accuracy is called.
    """
    made, (left, right) = figure(height=0.8 + 0.36 * len(rows), columns=2)
    made.get_layout_engine().set(wspace=0.08)
    for at, (_, rate, weight) in enumerate(rows):
        colour = COLOURS[1] if at == len(rows) - 1 else _OURS
        if rate is not None:
            bounds = [[rate.share - rate.low], [rate.high - rate.share]]
            left.errorbar(rate.share, at, xerr=bounds, fmt="o", color=colour, capsize=3)
            left.annotate(
                f"{rate.share:.0%}",
                (rate.share, at),
                (0, 5),
                ha="center",
                textcoords="offset points",
                fontsize=9,
                color=INK,
            )
        if weight is not None:
            right.barh(at, weight, height=0.6, color=colour)
            _beside(right, f"{weight:.2f}", weight, at, fontsize=9)
    left.set(yticks=range(len(rows)), yticklabels=[name for name, _, _ in rows], xlabel=accuracy)
    heaviest = max((weight or 0.0) for _, _, weight in rows)
    right.set(yticks=[], xlabel="weight", xlim=(0, heaviest * 1.3 or 1))
    left.xaxis.set_major_formatter(_percent)
    left.set(xlim=(min([0.5, *(rate.low for _, rate, _ in rows if rate)]) - 0.02, 1.02))
    left.locator_params(axis="x", nbins=3)
    right.locator_params(axis="x", nbins=3)
    for axis in (left, right):
        axis.set_ylim(len(rows) - 0.5, -0.6)
        axis.grid(axis="x", color=LINES, linewidth=0.6)
    return svg(made)


def matrix(names: Sequence[str], shares: np.ndarray) -> str:
    """Plot shares between K members (K, K), symmetric, as a triangle of cells with numbers."""
    made, axis = figure(height=0.9 + 0.42 * (len(names) - 1))
    for row, column in zip(*np.tril_indices(len(names), -1), strict=True):
        share = float(shares[row, column])
        axis.add_patch(_cell(int(column), int(row), share))
        axis.annotate(f"{share:.0%}", (column, row), ha="center", va="center", color=INK)
    axis.set(
        xlim=(-0.5, len(names) - 1.5),
        ylim=(len(names) - 0.5, 0.5),
        xticks=range(len(names) - 1),
        yticks=range(1, len(names)),
        xticklabels=names[:-1],
        yticklabels=names[1:],
    )
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return svg(made)


def scatter(
    points: np.ndarray, classes: Sequence[str], made: Sequence[bool], names: Sequence[str]
) -> str:
    """Plot real rows as rings and generated rows as dots, colored by class."""
    drawn, axis = figure(height=4.2)
    own = COLOURS[:-1] * (1 + len(names) // len(COLOURS[:-1]))
    known = dict(zip(names, own, strict=False))
    for name, colour in (known | {UNKNOWN: _OTHERS}).items():
        for kind in (False, True):
            here = np.array([c == name and m is kind for c, m in zip(classes, made, strict=True)])
            if not here.any():
                continue
            style: dict[str, Any] = {"facecolors": "none", "edgecolors": colour, "s": 28}
            if kind:
                style = {"color": colour, "s": 12, "alpha": 0.8, "linewidths": 0}
            if kind or name == UNKNOWN:
                style["label"] = name
            axis.scatter(*points[here].T, **style)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    legend(axis, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3)
    return svg(drawn)


def differences(arms: Mapping[str, tuple[float, float, float]], label: str) -> str:
    """Plot differences with their intervals, one line per arm, relative to zero."""
    return svg(_differences(arms, label))


def save_differences(
    arms: Mapping[str, tuple[float, float, float]], label: str, file: str | Path
) -> None:
    """Write the plot of `differences` to a file, in the format of its suffix."""
    _differences(arms, label).savefig(file, dpi=150)


def _differences(arms: Mapping[str, tuple[float, float, float]], label: str) -> Any:
    made, axis = figure(height=0.7 + 0.35 * len(arms))
    names = list(arms)[::-1]
    middle = np.array([arms[name] for name in names])
    reach = (middle[:, 0] - middle[:, 1], middle[:, 2] - middle[:, 0])
    axis.axvline(0, color=LINES, linewidth=1.5)
    axis.errorbar(middle[:, 0], names, xerr=reach, fmt="o", color=_OURS, capsize=3)
    axis.set(xlabel=label)
    return made


def _cell(column: int, row: int, share: float) -> Any:
    from matplotlib.patches import Rectangle

    corner = (column - 0.47, row - 0.47)
    shade = 0.06 + 0.64 * share**3  # most shares are large: what tells them apart is seen
    return Rectangle(corner, 0.94, 0.94, facecolor=_OURS, alpha=shade, linewidth=0)


def _percent(value: float, _position: int) -> str:
    return f"{value:.0%}"
