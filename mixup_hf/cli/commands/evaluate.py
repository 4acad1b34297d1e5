"""`mixup-hf evaluate`: an experiment, or what mixing and decoding do to a training set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

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
from mixup_hf.cli.pages import structure as structure_page
from mixup_hf.cli.paths import output_folder
from mixup_hf.evaluation.experiment.config import ExperimentConfig
from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.data.tables import LabelledTexts
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
_Config = Annotated[Path | None, typer.Argument(help="YAML file of an experiment.")]
_Data = Annotated[Path | None, typer.Option(help="Labelled texts: csv, jsonl or parquet.")]
_Structure = Annotated[
    bool, typer.Option("--structure", help="Compare the spread of real and generated rows.")
]
_Intrusion = Annotated[
    bool,
    typer.Option("--intrusion", help="Measure how often generated rows do not fit their label."),
]
_Quality = Annotated[bool, typer.Option("--quality", help="Measure the text quality of --rows.")]
_Rows = Annotated[
    Path | None,
    typer.Option(help="With --quality: rows that `mixup-hf augment` generated from --data."),
]
_Perplexity = Annotated[
    str | None, typer.Option(help="With --quality: a language model that did not generate them.")
]
_Weights = Annotated[
    list[str] | None,
    typer.Option(
        help="Distribution of λ; repeat the option to compare several. Default: three of them."
    ),
]
_NumRows = Annotated[int, typer.Option(help="Rows generated per measurement.")]
_Generations = Annotated[
    int, typer.Option(help="With --structure: how often generated rows are mixed again.")
]
_Seed = Annotated[int, typer.Option(help="Seed of pairs, ratios and decoding.")]
_OutputDir = Annotated[
    Path | None, typer.Option(help="Folder for the figures (JSON) and plots (PNG).")
]


@register("command", "evaluate", help="run an experiment, or measure generated rows")
@takes_settings(ExperimentConfig)
def command(
    context: typer.Context,
    overrides: Sequence[str],
    config: _Config = None,
    keys: Keys = False,
    data: _Data = None,
    structure: _Structure = False,
    intrusion: _Intrusion = False,
    quality: _Quality = False,
    rows: _Rows = None,
    perplexity: _Perplexity = None,
    weights: _Weights = None,
    num_rows: _NumRows = 200,
    generations: _Generations = 10,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    aligner: Aligner = "embedded",
    seed: _Seed = 0,
    output_dir: _OutputDir = None,
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
    own = given(context)
    if keys:
        print_settings(Console(), ExperimentConfig)
    elif config is not None:
        experiment.run(config, [*_settings_among(own), *overrides])
    else:
        _check(context.params, own, overrides)
        _run(context.params)


def _check(values: Mapping[str, Any], own: Iterable[str], overrides: Sequence[str]) -> None:
    """Refuse what cannot work, before a model is loaded."""
    if overrides:
        name = overrides[0].partition("=")[0]
        raise errors.InvalidInput(
            f"`{spelled(name[2:])}` belongs to an experiment: give its CONFIG.yaml first."
        )
    asked = {f"--{name}" for name in ("structure", "intrusion", "quality") if values[name]}
    if values["data"] is None or not asked:
        raise errors.InvalidInput(
            "Choose what to measure: a CONFIG.yaml; or --data with --structure, --intrusion, "
            "--quality, or several of them."
        )
    _check_options(own, asked)
    rows, weights = values["rows"], values["weights"] or ()
    if values["quality"] != (rows is not None):
        raise errors.InvalidInput("--quality and --rows belong together: give both, or neither.")
    if rows is not None and not rows.is_file():
        raise errors.MissingFile(f"--rows: there is no file {str(rows)!r}.")
    for spec in weights:
        registry.build("weights", spec, argument="--weights")
    if values["intrusion"] and len(weights) > 1 and not values["structure"]:
        raise errors.bad("--weights", "be given once with --intrusion", weights)
    errors.at_least("--generations", values["generations"], 1)
    errors.at_least("--num-rows", values["num_rows"], 2)
    if values["output_dir"] is not None:
        output_folder("--output-dir", values["output_dir"])


def _run(values: Mapping[str, Any]) -> None:
    from mixup_hf.data.tables import read_table

    table = read_table(values["data"], values["text_column"], values["label_column"])
    from mixup_hf.inverter.model import Inverter

    inverter = Inverter.from_pretrained(values["aligner"])
    title = f"{values['aligner']}, {len(table)} rows of {values['data'].name}"
    console, written = Console(), []
    if values["intrusion"]:
        written += _intrusion(console, inverter, table, values, title)
    folder, rows = values["output_dir"], values["rows"]
    if rows is not None:
        figures = quality_page.measure(inverter, table, rows, values["perplexity"], values["seed"])
        quality_page.show(console, figures)
        if folder is not None:
            written.append(quality_page.write(folder, figures, f"{title}: {rows.name}"))
    if values["structure"]:
        specs = values["weights"] or _WEIGHTS
        sizes = (values["num_rows"], values["generations"], values["seed"])
        found = structure_page.measure(inverter, table, specs, *sizes)
        structure_page.show(console, found)
        if folder is not None:
            written += structure_page.write(folder, found, title)
    for path in written:
        console.print(f"written: {path}", soft_wrap=True)


def _intrusion(
    console: Console,
    inverter: Inverter,
    table: LabelledTexts,
    values: Mapping[str, Any],
    title: str,
) -> list[Path]:
    seed, folder = values["seed"], values["output_dir"]
    intrusion_page.show_judges(console, intrusion_page.measure_judges(inverter, table, seed))
    spec = values["weights"][0] if values["weights"] else "uniform"
    reports = intrusion_page.measure(inverter, table, spec, values["num_rows"], seed)
    intrusion_page.show(console, reports)
    return [] if folder is None else intrusion_page.write(folder, reports, title)


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
