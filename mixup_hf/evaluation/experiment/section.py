"""One section of Markdown about many runs: the primary contrast, all arms, each set, the cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from mixup_hf.evaluation.experiment.config import PrimaryConfig
from mixup_hf.evaluation.experiment.primary import contrast, in_words, metric_name, rows
from mixup_hf.evaluation.experiment.runner import Job, Run
from mixup_hf.evaluation.experiment.summary import (
    Summary,
    Together,
    lines,
    summarise,
    together_cells,
)
from mixup_hf.evaluation.experiment.wording import TOGETHER


def section(
    runs: Mapping[Job, Run], primary: PrimaryConfig, baseline: str, all_sets: Together
) -> str:
    """The section as Markdown."""
    found = contrast(runs, primary)
    parts = ["## Does it help?"]
    if found is None:
        parts.append("The primary contrast has fewer than two pairs of runs so far.")
    else:
        parts += [f"Primary contrast: {in_words(found)}", lines(rows(found))]
    if all_sets:
        parts += [f"All arms against `{baseline}`. {TOGETHER}", lines(together_cells(all_sets))]
    parts.append(f"Mean {metric_name(primary.metric)} on each data set.")
    parts.append(lines(by_set(summarise(runs, baseline), primary.metric)))
    parts.append(cost(runs))
    return "\n\n".join(parts)


def by_set(summary: Summary, metric: str) -> list[dict[str, str]]:
    """The rows of a table with one line per arm and one column per data set."""
    names = dict.fromkeys(arm.arm for arms in summary.values() for arm in arms)
    table = []
    for name in names:
        row = {"arm": name}
        for (data, shots), arms in summary.items():
            means = [arm.means[metric] for arm in arms if arm.arm == name]
            row[f"{data}, {shots}"] = f"{means[0]:.3f}" if means else ""
        seconds = [arm.seconds for arms in summary.values() for arm in arms if arm.arm == name]
        row["seconds"] = f"{statistics.mean(seconds):.0f}"
        table.append(row)
    return table


def cost(runs: Mapping[Job, Run]) -> str:
    """What the runs took, in words."""
    hours = sum(run.metrics.get("cpu_seconds", run.metrics["seconds"]) for run in runs.values())
    learned = [
        run.metrics["train_accuracy"] for run in runs.values() if "train_accuracy" in run.metrics
    ]
    told = f"{len(runs)} runs, {hours / 3600:.1f} core-hours."
    if learned:
        told += (
            f" Training rows predicted correctly after training: {statistics.mean(learned):.1%}."
        )
    return told
