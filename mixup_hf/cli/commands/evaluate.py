"""`mixup-hf evaluate`: what mixing and decoding do to a training set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm.auto import tqdm

from mixup_hf import errors
from mixup_hf.cli.commands.finetune import config_and_overrides, print_keys
from mixup_hf.cli.pages import experiment
from mixup_hf.cli.pages import intrusion as intrusion_page
from mixup_hf.cli.pages import quality as quality_page
from mixup_hf.data.tables import LabelledTexts, read_table
from mixup_hf.evaluation.experiment.config import ExperimentConfig
from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.evaluation.structure import StructureReport
    from mixup_hf.inverter.model import Inverter

_WEIGHTS = ["beta:0.4", "uniform", "epbeta:eps=0.3"]


@register("command", "evaluate", help="run an experiment, or measure generated rows")
def command(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Argument(help="YAML file of an experiment: arms, sets, shots, seeds.")
    ] = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="List all keys of an experiment and stop.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="Labelled texts: csv, jsonl or parquet.")
    ] = None,
    structure: Annotated[
        bool, typer.Option("--structure", help="Compare the spread of real and generated rows.")
    ] = False,
    intrusion: Annotated[
        bool, typer.Option("--intrusion", help="How often generated rows do not fit their label.")
    ] = False,
    quality: Annotated[
        bool, typer.Option("--quality", help="How --rows read, and whether they do as asked.")
    ] = False,
    rows: Annotated[
        Path | None, typer.Option(help="For --quality: what `mixup-hf augment` made of --data.")
    ] = None,
    perplexity: Annotated[
        str | None, typer.Option(help="For --quality: a language model that did not make them.")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="May be given several times; default: three of them.")
    ] = None,
    num_rows: Annotated[int, typer.Option(help="Rows made in each generation.")] = 200,
    generations: Annotated[int, typer.Option(help="How often rows made are mixed again.")] = 10,
    text_column: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    label_column: Annotated[str, typer.Option(help="Column of the label.")] = "label",
    aligner: Annotated[str, typer.Option(help="embedded, a folder, or a Hub id.")] = "embedded",
    seed: Annotated[int, typer.Option(help="Of pairs, ratios and decoding.")] = 0,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where figures go, as JSON, and plots, as PNG.")
    ] = None,
) -> None:
    """Does it help? Run an experiment; or measure generated rows against the real ones.

    With CONFIG.yaml: every arm on the same rows with as many steps, over data sets, shots and
    seeds, with paired tests. Every key can be given as an option; runs are appended to
    output_dir/runs.jsonl, one that was stopped goes on, and several processes share the work.

    --structure: variance ratio and Frobenius error of the covariance, energy distance with a
    permutation p-value, per class, before and after decoding; and what becomes of the variance when
    rows are made from rows made, again and again.

    --intrusion: how often judges find a sentence that its label does not fit, by ratio and by
    distance of the parents, for pairs of one class (where the label cannot be wrong by mixing: the
    null) and of two; and how often the judges doubt real rows that they have not seen. Ratios are
    uniform; of --weights only the first is used.

    --quality: of the rows in --rows, made from --data: length, variety, copies, perplexity, whether
    each lies where its mix lay, whether a classifier that has not seen its parents says its class,
    and whether one can tell generated rows from real ones.
    """
    if keys:
        print_keys(Console(), ExperimentConfig)
        return
    if config is not None:
        experiment.run(*config_and_overrides(config, context.args))
        return
    if context.args:
        raise errors.InvalidInput(
            f"{context.args[0]} is no option, and no config was given to set it in."
        )
    if data is None or not (structure or intrusion or quality):
        raise errors.InvalidInput(
            "Say what to measure: a CONFIG.yaml; or --data with --structure, --intrusion, "
            "--quality, or several of them."
        )
    if quality != (rows is not None):
        raise errors.InvalidInput(
            "--quality and --rows belong together: give both, or none of them."
        )
    if rows is not None and not rows.is_file():
        raise errors.MissingFile(f"--rows: there is no file {str(rows)!r}.")
    if perplexity is not None and not quality:
        raise errors.InvalidInput("--perplexity is of the rows in --rows: give it with --quality.")
    errors.at_least("--generations", generations, 1)
    errors.at_least("--num-rows", num_rows, 2)
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
