"""`mixup-hf augment`: a file of generated rows from labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mixup_hf import errors, registry
from mixup_hf.cli.options import Keys, LabelColumn, TextColumn, print_settings, takes_settings
from mixup_hf.cli.paths import output_file
from mixup_hf.config import MixupConfig, check_unlabeled

if TYPE_CHECKING:
    from mixup_hf.training.augmentation import Augmented

UnlabeledFile = Annotated[
    str | None,
    typer.Option(
        help="Texts without labels, one per line (.txt) or a table; a committee labels them."
    ),
]


@registry.register("command", "augment", help="write generated rows to a file")
@takes_settings(MixupConfig)
def command(
    data: Annotated[
        str | None,
        typer.Option(help="Labelled texts: csv, jsonl, parquet, or the name of a data set."),
    ] = None,
    num_samples: Annotated[int | None, typer.Option(help="Rows to write, exactly.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write; its settings go to OUTPUT.run.json.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="jsonl, csv or parquet. Default: the suffix of --output.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns to write, such as text,label. Default: all.")
    ] = None,
    provenance: Annotated[
        bool, typer.Option(help="Write how each row was generated, not only texts and labels.")
    ] = True,
    parents: Annotated[
        bool, typer.Option("--parents", help="Write the parents' texts: training data.")
    ] = False,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    text_pair_column: Annotated[
        str | None, typer.Option(help="Column of the second text, where rows are pairs.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Configuration of a Hub data set.")] = None,
    split: Annotated[str, typer.Option(help="Split of a data set.")] = "train",
    eval_data: Annotated[
        str | None, typer.Option(help="Evaluation texts; generated rows never nearly equal one.")
    ] = None,
    unlabeled_file: UnlabeledFile = None,
    keys: Keys = False,
    from_row: Annotated[
        str | None,
        typer.Option(metavar="FILE:LINE", help="Print this row of an earlier output, regenerated."),
    ] = None,
    *,
    overrides: list[str],
) -> None:
    """Write generated sentences with their labels, their parents, ratio and seed.

    With --from-row, nothing else is needed: the settings beside the file are used.
    """
    if keys:
        print_settings(Console(), MixupConfig)
        return
    if from_row is not None:
        _print_again(from_row, data)
        return
    _require({"--data": data, "--num-samples": num_samples, "--output": output})
    assert data is not None and num_samples is not None and output is not None
    errors.at_least("--num-samples", num_samples, 1)
    read = {"--data": data, "--eval-data": eval_data, "--unlabeled-file": unlabeled_file}
    output_file("--output", output, read)
    chosen = _written(output, format, columns, provenance, parents)
    settings = _settings(overrides, unlabeled_file)
    source: dict[str, Any] = {"data": data, "name": name, "split": split, "eval_data": eval_data}
    source |= {
        "unlabeled_file": unlabeled_file,
        "columns": [text_column, label_column, text_pair_column],
    }
    _show(Console(), _augment(output, format, num_samples, source, chosen, settings), output)


def _require(options: dict[str, object]) -> None:
    for option, value in options.items():
        if value is None:
            raise errors.InvalidInput(f"{option} is missing. Give it, or --from-row FILE:LINE.")


def _written(
    output: Path, format: str | None, columns: str | None, provenance: bool, parents: bool
) -> Any:
    """The columns to write, checked before anything is loaded."""
    from mixup_hf.data.row_formats import format_of
    from mixup_hf.data.row_writer import select
    from mixup_hf.training.augmentation import Written

    format_of(output, format)
    names = tuple(name.strip() for name in columns.split(",")) if columns else ()
    select({}, names)
    return Written(names, "full" if provenance else "none", parents)


def _settings(overrides: list[str], unlabeled_file: str | None) -> dict[str, Any]:
    from mixup_hf.config.load import load_config

    config = load_config(MixupConfig, None, overrides)
    check_unlabeled(config, "--unlabeled-file", "--", given=unlabeled_file is not None)
    return {name: getattr(config, name) for name in MixupConfig.__dataclass_fields__}


def _augment(
    output: Path,
    format: str | None,
    num_samples: int,
    source: dict[str, Any],
    written: Any,
    settings: dict[str, Any],
) -> Augmented:
    from tqdm.auto import tqdm

    from mixup_hf import runtime
    from mixup_hf.data.row_writer import partial_of
    from mixup_hf.data.tables import read_table
    from mixup_hf.training.augmentation import augment_file, prepare
    from mixup_hf.training.regeneration import read_known

    runtime.join_processes()
    columns = source["columns"]
    table = read_table(source["data"], *columns, name=source["name"], split=source["split"])
    known = read_known(source)
    mixup = prepare(table, settings.pop("aligner"), None, known, settings)
    made = 0
    quiet = not runtime.is_main_process()
    bar_of = tqdm(total=num_samples, desc="generating", unit="sentence", disable=quiet)
    with bar_of as bar, runtime.ticking(bar):

        def count(rows: int) -> None:
            nonlocal made
            made += rows
            bar.update(rows)

        try:
            return augment_file(
                output,
                mixup,
                table,
                num_samples,
                data=source,
                written=written,
                format=format,
                on_chunk=count,
            )
        except BaseException:
            bar.close()
            where = f"; they are in {partial_of(output)}" if made else ""
            typer.echo(f"{made} of {num_samples} rows were generated{where}.", err=True)
            raise


def _show(console: Console, done: Augmented, output: Path) -> None:
    """Print what was generated, once for all processes."""
    from mixup_hf import runtime

    if not runtime.is_main_process():
        return
    summary = done.summary
    if len(done.names) > 1:
        table = Table("class", "training rows", "generated rows")
        for at, name in enumerate(done.names):
            # Quoted: "politics " and "politics" are two classes.
            shown = escape(repr(name))
            table.add_row(shown, str(done.real_by_class[name]), str(summary.by_class[at]))
        console.print(table)
    if done.readability is not None:
        console.print(done.readability.summary, soft_wrap=True, highlight=False)
    console.print(str(summary), soft_wrap=True, highlight=False)
    if done.labelled_by:
        console.print(f"labelled by {done.labelled_by}", soft_wrap=True, highlight=False)
    if summary.copies:
        console.print(
            f"{summary.copies} rows are copies of training rows: every sentence generated for them "
            "was rejected. Drop the rows whose `mitigation` is 'parent' if you do not want them.",
            soft_wrap=True,
            highlight=False,
        )
    console.print(
        f"words per text: {done.real_words:.1f} real, {summary.mean_words:.1f} generated; "
        f"{done.seconds:.1f} s",
        highlight=False,
    )
    console.print(f"{summary.rows} rows written to {output}", soft_wrap=True)


def _print_again(place: str, data: str | None) -> None:
    from mixup_hf.data.row_writer import json_line
    from mixup_hf.training.regeneration import read_line, regenerate

    record, run = read_line(place)
    again = regenerate(record, run, data)
    # Not rich: the line must be what the file has.
    typer.echo(json_line(again), nl=False)
    # As strings: a csv file does not tell 0 from "0".
    keys = sorted({*record, *again})
    changed = [key for key in keys if str(again.get(key)) != str(record.get(key))]
    if changed:
        raise errors.InvalidInput(
            f"{place} came out differently ({', '.join(changed)}). Sentences are the same on the "
            "same kind of machine with the same versions of torch and transformers."
        )
