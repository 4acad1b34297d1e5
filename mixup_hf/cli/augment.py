"""`mixup-hf augment`: a file of mixed rows from a file of labelled texts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from tqdm.auto import tqdm

from mixup_hf import _checks
from mixup_hf.tables import LabelledTexts, read_table


def command(
    data: Annotated[Path, typer.Option(help="Labelled texts: csv, jsonl or parquet.")],
    num_samples: Annotated[int, typer.Option(help="Rows to write, exactly.")],
    output: Annotated[Path, typer.Option(help="JSON-lines file to write.")],
    text_column: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    label_column: Annotated[str, typer.Option(help="Column of the label.")] = "label",
    seed: Annotated[int, typer.Option(help="Another seed gives other sentences.")] = 0,
    aligner: Annotated[str, typer.Option(help="embedded, a folder, or a Hub id.")] = "embedded",
    weights: Annotated[str, typer.Option(help="beta:A, uniform or fixed:W.")] = "beta:0.4",
    pairing: Annotated[str, typer.Option(help="same_class, random, cross_class.")] = "same_class",
    temperature: Annotated[float, typer.Option(help="0 decodes greedily.")] = 0.7,
    num_candidates: Annotated[int, typer.Option(help="Keep the best of this many.")] = 1,
) -> None:
    """Write mixed sentences with soft labels, each with its parents, its ratio and its seed."""
    _checks.at_least("--num-samples", num_samples, 1)
    if not output.parent.is_dir():
        raise FileNotFoundError(
            f"--output: there is no folder {str(output.parent)!r}. Make it first."
        )
    table = read_table(data, text_column, label_column)
    from mixup_hf.plugin import InversedMixup

    mixup = InversedMixup.from_pretrained(
        aligner,
        table.texts,
        table.labels,
        seed=seed,
        weights=weights,
        pairing=pairing,
        temperature=temperature,
        num_candidates=num_candidates,
    )
    with tqdm(total=num_samples, desc="generating", unit="sentence") as bar:
        rows = mixup.generate(num_samples, on_chunk=bar.update)
    lines = [_line(row, mixup.label_names, table, aligner) for row in rows]
    partial = output.with_name(f".{output.name}.partial")
    partial.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8"
    )
    os.replace(partial, output)
    Console().print(f"{len(lines)} rows written to {output}", soft_wrap=True)


def _line(row: Any, names: list[str], table: LabelledTexts, aligner: str) -> dict[str, Any]:
    from mixup_hf.finetuning import mixed_json

    full = mixed_json(row, table, names)
    return full | {"aligner": aligner, "aligner_fingerprint": row.aligner}
