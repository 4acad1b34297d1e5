"""`mixup-hf compare`: files of runs, rendered as one section of Markdown and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixup_hf import errors
from mixup_hf.cli.paths import output_file
from mixup_hf.config import build
from mixup_hf.evaluation.experiment.config import PrimaryConfig
from mixup_hf.registry import register

_ARM, _BASELINE = "default", "oversample"


@register("command", "compare", help="one section about the runs of experiments")
def command(
    runs: Annotated[list[Path], typer.Argument(help="Files of runs, all of one regime.")],
    arm: Annotated[str, typer.Option(help="The arm that is to help.")] = _ARM,
    against: Annotated[str, typer.Option(help="Its rivals, separated by semicolons.")] = ";".join(
        PrimaryConfig().against
    ),
    metric: Annotated[str, typer.Option(help="accuracy or macro_f1.")] = "accuracy",
    baseline: Annotated[
        str, typer.Option(help="The arm that all others are compared with.")
    ] = _BASELINE,
    plot: Annotated[
        Path | None, typer.Option(help="File of a plot of all differences, such as effect.png.")
    ] = None,
) -> None:
    """Print an arm against the best of its rivals, all arms over all sets, and what it took.

    The runs are those of `mixup-hf evaluate CONFIG.yaml`: `runs.jsonl` of its output directory.
    Several files are read as one. The same run twice with different settings is refused; otherwise
    their settings are not compared.
    """
    for file in runs:
        if not file.is_file():
            raise errors.MissingFile(f"There is no file {str(file)!r}.")
    values = {"arm": arm, "against": tuple(against.split(";")), "metric": metric}
    primary = build(PrimaryConfig, values)
    if plot is not None:
        output_file("--plot", plot)
    from mixup_hf.evaluation.experiment.runner import Job, Run, read_runs
    from mixup_hf.evaluation.experiment.section import section
    from mixup_hf.evaluation.experiment.summary import together
    from mixup_hf.evaluation.report.plots import save_differences

    found: dict[Job, Run] = {}
    settings: dict[Job, str] = {}
    for file in runs:
        for number, run, how in read_runs(file):
            if settings.setdefault(run.job, how) != how:
                raise errors.InvalidInput(
                    f"{file}, line {number}: {run.job} is among the runs twice, with "
                    "other settings. Compare files of one experiment."
                )
            found[run.job] = run
    if not found:
        raise errors.InvalidInput(f"There are no runs in {', '.join(map(str, runs))}.")
    arms = sorted({job.arm for job in found})
    for option, name, usual in (("--arm", arm, _ARM), ("--baseline", baseline, _BASELINE)):
        if name != usual:
            errors.one_of(option, name, arms)
    all_sets = together(found, baseline)
    typer.echo(section(found, primary, baseline, all_sets))
    if plot is not None and all_sets:
        points = {
            name: (100 * each.difference, 100 * each.low, 100 * each.high)
            for name, (each, _) in all_sets.items()
        }
        save_differences(points, f"points of accuracy over {baseline}", plot)
