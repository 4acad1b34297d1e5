"""Does it help? The first section of RESULTS.md, and its plot, from runs of `mixup-hf evaluate`.

    mixup-hf evaluate recipes/configs/evaluate/effect.yaml
    python recipes/benchmarks/effect.py runs/effect/runs.jsonl --plot recipes/benchmarks/effect.png

Several files of runs are read as one: the arms of effect.yaml and effect_methods.yaml, say. They
must be of one regime; settings are not compared. Prints Markdown: the primary contrast, all arms
against the baseline over all data sets, the accuracy on each set, and what the runs took.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path

from mixup_hf.evaluation.experiment.config import PrimaryConfig
from mixup_hf.evaluation.experiment.primary import contrast, in_words, rows
from mixup_hf.evaluation.experiment.runner import Job, Run, read_runs
from mixup_hf.evaluation.experiment.summary import (
    Summary,
    Together,
    lines,
    summarise,
    together,
    together_cells,
)
from mixup_hf.evaluation.experiment.wording import TOGETHER
from mixup_hf.evaluation.report.plots import save_differences

METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


def main() -> None:
    """Print the section, and draw the plot if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="files of runs")
    parser.add_argument("--arm", default="default")
    parser.add_argument("--against", nargs="+", default=list(PrimaryConfig().against))
    parser.add_argument("--metric", default="accuracy", choices=list(METRICS))
    parser.add_argument("--baseline", default="oversample")
    parser.add_argument("--plot", type=Path, help="file of the plot, such as effect.png")
    options = parser.parse_args()
    runs = {run.job: run for file in options.runs for _, run, _ in read_runs(file)}
    primary = PrimaryConfig(arm=options.arm, against=options.against, metric=options.metric)
    all_sets = together(runs, options.baseline)
    print(section(runs, primary, options.baseline, all_sets))
    if options.plot is not None and all_sets:
        gaps = {
            arm: (100 * found.difference, 100 * found.low, 100 * found.high)
            for arm, (found, _) in all_sets.items()
        }
        save_differences(gaps, f"points of accuracy over {options.baseline}", options.plot)


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
    parts.append(f"Mean {METRICS[primary.metric]} on each data set.")
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


if __name__ == "__main__":
    main()
