"""How a run went: the share of generated rows and the losses over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixup_hf.evaluation.report import drawing, plots
from mixup_hf.evaluation.report.pages import PlotOf, Section, read_json

_SHARE = "mixup_hf/generated_share"
_LOSSES = {
    "training": "loss",
    "real rows": "mixup_hf/loss_real",
    "generated rows": "mixup_hf/loss_generated",
    "evaluation": "eval_loss",
}
# As the Trainer names it, and without what is added to the cross entropy of the rows.
_NOTE = (
    "Loss of the training rows as the Trainer logs it, with every term; of real and of generated "
    "rows, the cross entropy alone."
)


def course_section(folder: Path) -> Section:
    """The plots of a run's log lines; empty without any.

    Args:
        folder: The run's folder, with `history.json` or the Trainer's last checkpoint.

    Raises:
        ValueError: A file is damaged.
    """
    history = read_history(folder)
    blocks: list[PlotOf] = []
    shares = _points(history, _SHARE)
    if shares and drawing.available():
        blocks.append(PlotOf("Curriculum", plots.shares_over_steps(shares), _in_words(shares)))
    lines = {name: _points(history, key) for name, key in _LOSSES.items()}
    lines = {name: points for name, points in lines.items() if points}
    if lines and drawing.available():
        note = _NOTE if len(lines) > 1 else "Loss of the training rows as the Trainer logs it."
        blocks.append(PlotOf("Loss", plots.curves(lines, "loss"), note))
    return Section("How it went", blocks)


def read_history(folder: Path) -> Sequence[Mapping[str, Any]]:
    """The log lines of a run: of `history.json`, else of the last checkpoint's trainer state.

    Raises:
        ValueError: The file is damaged.
    """
    file = folder / "history.json"
    if file.is_file():
        found: list[dict[str, Any]] = read_json(file)
        return found
    states = [each for each in folder.glob("checkpoint-*/trainer_state.json") if _step(each) >= 0]
    if not states:
        return []
    lines: list[dict[str, Any]] = read_json(max(states, key=_step)).get("log_history", [])
    return lines


def _step(state: Path) -> int:
    number = state.parent.name.removeprefix("checkpoint-")
    return int(number) if number.isdigit() else -1


def _points(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(float(line["step"]), float(line[key])) for line in history if key in line]


def _in_words(shares: Sequence[tuple[float, float]]) -> str:
    """The share over the whole run, and from when on there were none."""
    steps = [0.0, *(step for step, _ in shares)]
    widths = [after - before for before, after in zip(steps, steps[1:], strict=False)]
    whole = sum(width * share for width, (_, share) in zip(widths, shares, strict=True))
    mixing = [step for step, share in shares if share > 0]
    last = f"the last ones at step {mixing[-1]:.0f} or before" if mixing else "none at any step"
    return (
        f"Share of generated rows in the batches since the last log line, as counted while "
        f"training: {whole / steps[-1]:.0%} over {steps[-1]:.0f} steps, {last}."
    )
