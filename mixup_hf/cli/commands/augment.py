"""`mixup-hf augment`: a file of mixed rows from a file of labelled texts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from tqdm.auto import tqdm

from mixup_hf import errors
from mixup_hf.cli.options import Aligner, Keys, LabelColumn, TextColumn, print_settings
from mixup_hf.cli.paths import output_file
from mixup_hf.config import DEFAULT_METHOD, MixupConfig
from mixup_hf.registry import register


@register("command", "augment", help="write generated rows to a file")
def command(
    data: Annotated[
        Path | None, typer.Option(help="Labelled texts: csv, jsonl or parquet.")
    ] = None,
    num_samples: Annotated[int | None, typer.Option(help="Rows to write, exactly.")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON-lines file to write.")] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    seed: Annotated[int, typer.Option(help="Another seed gives other sentences.")] = 0,
    aligner: Aligner = "embedded",
    method: Annotated[
        str, typer.Option(help="smotext, inversed-mixup or structure-preserving.")
    ] = DEFAULT_METHOD,
    weights: Annotated[
        str | None,
        typer.Option(help="beta:A, uniform, fixed:W, epbeta:eps=E; default: by method."),
    ] = None,
    pairing: Annotated[
        str | None, typer.Option(help="same_class, random, smote, ...; default: the method's.")
    ] = None,
    intrusion: Annotated[
        str, typer.Option(help="keep, drop, resample, relabel, blend, local, weight or off.")
    ] = "drop",
    temperature: Annotated[float, typer.Option(help="0 decodes greedily.")] = 0.7,
    num_candidates: Annotated[int, typer.Option(help="Keep the best of this many.")] = 1,
    engine: Annotated[
        str, typer.Option(help="auto, transformers, fast, or vllm:http://host:8000.")
    ] = "auto",
    keys: Keys = False,
    from_row: Annotated[
        str | None,
        typer.Option(metavar="FILE:LINE", help="Print this row of an earlier output, made again."),
    ] = None,
) -> None:
    """Write mixed sentences with soft labels, each with its parents, its ratio and its seed.

    With --from-row, nothing else is needed: the row says how it was made.
    """
    if keys:
        print_settings(Console(), MixupConfig)
        return
    if from_row is not None:
        _print_again(from_row, data)
        return
    for name, value in (("--data", data), ("--num-samples", num_samples), ("--output", output)):
        if value is None:
            raise errors.InvalidInput(f"{name} is missing. Give it, or --from-row FILE:LINE.")
    assert data is not None and num_samples is not None and output is not None
    errors.at_least("--num-samples", num_samples, 1)
    output_file("--output", output)
    from mixup_hf.data.tables import read_table
    from mixup_hf.training.regeneration import augmented_json, run_record

    table = read_table(data, text_column, label_column)
    from mixup_hf.training.inversed import InversedMixup

    mixup = InversedMixup.from_pretrained(
        aligner,
        table.texts,
        table.labels,
        seed=seed,
        method=method,
        weights=weights,
        intrusion=intrusion,
        pairing=pairing,
        temperature=temperature,
        num_candidates=num_candidates,
        engine=engine,
    )
    run = run_record(data, (text_column, label_column), table, mixup.config, num_samples)
    partial = output.with_name(f".{output.name}.partial")
    with (
        partial.open("w", encoding="utf-8") as stream,
        tqdm(total=num_samples, desc="generating", unit="sentence") as bar,
    ):
        for rows in mixup.stream(num_samples):
            for row in rows:
                line = augmented_json(row, table, mixup.label_names, run)
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            bar.update(len(rows))
    os.replace(partial, output)
    Console().print(f"{num_samples} rows written to {output}", soft_wrap=True)


def _print_again(place: str, data: Path | None) -> None:
    from mixup_hf.training.regeneration import read_line, regenerate

    row = read_line(place)
    line = json.dumps(regenerate(row, data), ensure_ascii=False)
    # Not rich: the line is to be as it stands in the file.
    typer.echo(line)
    again = json.loads(line)
    if again != row:
        changed = sorted(key for key in row if again.get(key) != row[key])
        raise errors.InvalidInput(
            f"{place} came out differently ({', '.join(changed)}). Sentences are the same on the "
            "same kind of machine with the same versions of torch and transformers."
        )
