"""`mixup-hf evaluate`: what mixing and decoding do to a training set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm.auto import tqdm

from mixup_hf import errors, registry
from mixup_hf.cli.options import (
    Aligner,
    Keys,
    LabelColumn,
    TextColumn,
    given,
    print_settings,
    spelled,
    takes_settings,
)
from mixup_hf.cli.pages import experiment
from mixup_hf.cli.pages import intrusion as intrusion_page
from mixup_hf.cli.pages import quality as quality_page
from mixup_hf.cli.paths import output_folder
from mixup_hf.config import MixupConfig
from mixup_hf.data.tables import LabelledTexts, read_table
from mixup_hf.evaluation.experiment.config import ExperimentConfig
from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.structure import StructureReport
    from mixup_hf.inverter.model import Inverter

_WEIGHTS = ["beta:0.4", "uniform", "epbeta:eps=0.3"]
# The settings of an experiment that options of measurements are, and which measurement uses which.
_SETTINGS = {"--rows": "rows", "--output-dir": "output_dir", "--aligner": "mixup.aligner"}
_USED_BY = {
    "--rows": {"--quality"},
    "--perplexity": {"--quality"},
    "--weights": {"--structure", "--intrusion"},
    "--num-rows": {"--structure", "--intrusion"},
    "--generations": {"--structure"},
}


@register("command", "evaluate", help="run an experiment, or measure generated rows")
@takes_settings(ExperimentConfig)
def command(
    context: typer.Context,
    overrides: Sequence[str],
    config: Annotated[Path | None, typer.Argument(help="YAML file of an experiment.")] = None,
    keys: Keys = False,
    data: Annotated[
        Path | None, typer.Option(help="Labelled texts: csv, jsonl or parquet.")
    ] = None,
    structure: Annotated[
        bool, typer.Option("--structure", help="Compare the spread of real and generated rows.")
    ] = False,
    intrusion: Annotated[
        bool,
        typer.Option(
            "--intrusion", help="Measure how often generated rows do not fit their label."
        ),
    ] = False,
    quality: Annotated[
        bool, typer.Option("--quality", help="Measure the text quality of --rows.")
    ] = False,
    rows: Annotated[
        Path | None,
        typer.Option(help="With --quality: rows that `mixup-hf augment` generated from --data."),
    ] = None,
    perplexity: Annotated[
        str | None,
        typer.Option(help="With --quality: a language model that did not generate them."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Distribution of λ; repeat the option to compare several. Default: three of them."
        ),
    ] = None,
    num_rows: Annotated[int, typer.Option(help="Rows generated per measurement.")] = 200,
    generations: Annotated[
        int, typer.Option(help="With --structure: how often generated rows are mixed again.")
    ] = 10,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    aligner: Aligner = "embedded",
    seed: Annotated[int, typer.Option(help="Seed of pairs, ratios and decoding.")] = 0,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder for the figures (JSON) and plots (PNG).")
    ] = None,
) -> None:
    """Run an experiment, or measure generated rows against the real ones.

    **With CONFIG.yaml**: every arm on the same rows and for the same number of steps, over data
    sets, shots and seeds, with paired tests. Every setting can be given as an option. Runs are
    appended to runs.jsonl in the output directory; an interrupted experiment is resumed, and
    several processes can share the work.

    **--structure**: variance ratio and Frobenius error of the covariance, and energy distance with
    a permutation p-value, per class, before and after decoding; and the variance over generations
    in which generated rows are mixed again.

    **--intrusion**: how often the judges find that a sentence does not fit its label, by ratio and
    by distance of the parents, for same-class pairs (the null: mixing cannot make their label
    wrong) and for cross-class pairs; and how often they doubt real rows they were not fitted on.
    At most one --weights; default: uniform.

    **--quality**: length, variety, copies and perplexity of the rows in --rows, which were made
    from --data; whether each lies where its mix does, whether a classifier that was not trained on
    its parents predicts its class, and whether generated rows can be told from real ones.
    """
    if keys:
        print_settings(Console(), ExperimentConfig)
        return
    own = given(context)
    if config is not None:
        experiment.run(config, [*_settings_among(own), *overrides])
        return
    if overrides:
        name = overrides[0].partition("=")[0]
        raise errors.InvalidInput(
            f"`{spelled(name[2:])}` belongs to an experiment: give its CONFIG.yaml first."
        )
    if data is None or not (structure or intrusion or quality):
        raise errors.InvalidInput(
            "Choose what to measure: a CONFIG.yaml; or --data with --structure, --intrusion, "
            "--quality, or several of them."
        )
    if quality != (rows is not None):
        raise errors.InvalidInput("--quality and --rows belong together: give both, or neither.")
    asked = {"--structure": structure, "--intrusion": intrusion, "--quality": quality}
    _check_options(own, {name for name, wanted in asked.items() if wanted})
    for spec in weights or ():
        MixupConfig(weights=spec)  # before minutes of decoding
    if intrusion and len(weights or ()) > 1 and not structure:
        raise errors.bad("--weights", "be given once with --intrusion", weights)
    if output_dir is not None:
        output_folder("--output-dir", output_dir)
    if rows is not None and not rows.is_file():
        raise errors.MissingFile(f"--rows: there is no file {str(rows)!r}.")
    errors.at_least("--generations", generations, 1)
    errors.at_least("--num-rows", num_rows, 2)
    for spec in weights or ():
        registry.build("weights", spec, argument="--weights")
    table = read_table(data, text_column, label_column)
    title = f"{aligner}, {len(table)} rows of {data.name}"
    from mixup_hf.inverter.model import Inverter

    inverter = Inverter.from_pretrained(aligner)
    console, written = Console(), []
    if intrusion:
        intrusion_page.show_judges(console, intrusion_page.measure_judges(inverter, table, seed))
        spec = weights[0] if weights else "uniform"
        reports = intrusion_page.measure(inverter, table, spec, num_rows, seed)
        intrusion_page.show(console, reports)
        if output_dir is not None:
            written += intrusion_page.write(output_dir, reports, title)
    if rows is not None:
        figures = quality_page.measure(inverter, table, rows, perplexity, seed)
        quality_page.show(console, figures)
        if output_dir is not None:
            written.append(quality_page.write(output_dir, figures, f"{title}: {rows.name}"))
    if structure:
        found = _measure(inverter, table, weights or _WEIGHTS, num_rows, generations, seed)
        _show(console, found)
        if output_dir is not None:
            written += _write(output_dir, found, title)
    for path in written:
        console.print(f"written: {path}", soft_wrap=True)


def _settings_among(own: Mapping[str, Any]) -> list[str]:
    """The command's own options as settings of an experiment; the others are refused."""
    foreign = [name for name in own if name not in {*_SETTINGS, "config"}]
    if foreign:
        raise errors.InvalidInput(
            f"{', '.join(foreign)} cannot be used with a CONFIG.yaml. Set the experiment's own "
            "settings instead; `mixup-hf evaluate --keys` lists them."
        )
    return [f"--{_SETTINGS[name]}={own[name]}" for name in own if name in _SETTINGS]


def _check_options(own: Iterable[str], asked: set[str]) -> None:
    """Refuse options that none of the measurements asked for uses."""
    for name in own:
        if name in _USED_BY and not _USED_BY[name] & asked:
            users = " or ".join(sorted(_USED_BY[name]))
            raise errors.InvalidInput(f"{name} is used with {users} only.")


def _measure(
    inverter: Inverter,
    table: LabelledTexts,
    weights: Sequence[str],
    num_rows: int,
    generations: int,
    seed: int,
) -> list[StructureReport]:
    from mixup_hf.data.targets import class_indices
    from mixup_hf.evaluation.structure import measure_structure
    from mixup_hf.mixing.weights import parse_weights

    for spec in weights:
        parse_weights(spec)  # before minutes of decoding
    labels, names = class_indices(table.labels, None, None)
    with tqdm(total=len(weights) * generations, desc="generations") as bar:
        return [
            measure_structure(
                inverter,
                table.texts,
                labels,
                names,
                spec,
                num_rows=num_rows,
                generations=generations,
                seed=seed,
                on_generation=bar.update,
            )
            for spec in weights
        ]


def _show(console: Console, reports: Sequence[StructureReport]) -> None:
    for report in reports:
        title = f"{escape(report.weights)}: theory keeps {report.expected:.1%} of the variance"
        table = Table("class", "rows", "variance ratio", "Frobenius", "energy", "p", title=title)
        for kind, classes in (("mixes", report.before), ("sentences", report.after)):
            for name, each in classes.items():
                figures = (each.variance_ratio, each.frobenius, each.energy, each.p_value)
                table.add_row(escape(name), kind, *(f"{figure:.3f}" for figure in figures))
        console.print(table)
    kinds = [(report, kind) for report in reports for kind in ("mixes", "sentences")]
    headings = (f"{escape(report.weights)} {kind}" for report, kind in kinds)
    curves = Table("generation", *headings, title="Variance ratio by generation")
    lines = [
        report.curve_before if kind == "mixes" else report.curve_after for report, kind in kinds
    ]
    for number, ratios in enumerate(zip(*lines, strict=True), start=1):
        curves.add_row(str(number), *(f"{ratio:.2f}" for ratio in ratios))
    console.print(curves)


def _write(folder: Path, reports: Sequence[StructureReport], title: str) -> list[Path]:
    """Write structure.json, and structure.png where matplotlib is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "structure.json"
    content = {"title": title, "reports": [asdict(report) for report in reports]}
    file.write_text(json.dumps(content, indent=2) + "\n")
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return [file]
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    steps = range(1, len(reports[0].curve_before) + 1)
    for report in reports:
        (line,) = axis.plot(steps, report.curve_before, linestyle="--")
        axis.plot(steps, report.curve_after, color=line.get_color(), label=report.weights)
    axis.axhline(1, color="0.7")
    axis.set(xlabel="generation", ylabel="variance ratio (dashed: not decoded)", title=title)
    axis.legend()
    picture = folder / "structure.png"
    figure.savefig(picture, dpi=130)
    plt.close(figure)
    return [file, picture]
