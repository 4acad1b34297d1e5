"""`mixup-hf audit`: what generated rows give away of the training texts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mixup_hf import errors
from mixup_hf.cli.options import Aligner, LabelColumn, TextColumn, given
from mixup_hf.cli.paths import output_file
from mixup_hf.config import DEFAULT_METHOD
from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.data.tables import LabelledTexts
    from mixup_hf.evaluation.privacy import Audit


_ONLY_WITHOUT_ROWS = (
    "--num-samples",
    "--canaries",
    "--method",
    "--weights",
    "--hints",
    "--own-texts",
)


@register("command", "audit", help="what generated rows reveal about the training texts")
def command(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Training texts: csv, jsonl or parquet.")],
    rows: Annotated[
        Path | None, typer.Option(help="Rows that `mixup-hf augment` generated from them.")
    ] = None,
    holdout: Annotated[
        Path | None, typer.Option(help="With --rows: texts that nothing was generated from.")
    ] = None,
    num_samples: Annotated[
        int, typer.Option(help="Without --rows: how many rows to generate.")
    ] = 400,
    canaries: Annotated[int, typer.Option(help="Without --rows: how many secrets to plant.")] = 20,
    method: Annotated[
        str, typer.Option(help="Without --rows: the mixing method.")
    ] = DEFAULT_METHOD,
    weights: Annotated[
        str | None,
        typer.Option(help="Without --rows: the distribution of λ. By default the method's."),
    ] = None,
    hints: Annotated[
        str, typer.Option(help="Without --rows: hints from the `embedding`, or the `parents` too.")
    ] = "embedding",
    own_texts: Annotated[
        str,
        typer.Option(
            help="Without --rows: `auto`, or `off`: the aligner does not read them first."
        ),
    ] = "auto",
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    aligner: Aligner = "embedded",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Measure what generated rows reveal of the training texts: copies, membership, secrets.

    With --rows and --holdout, existing rows are audited. Without them, rows are generated for the
    audit: half of the texts are mixed, with secrets planted among them; the other half is held out.
    """
    if output is not None:
        read = {"--data": data, "--rows": rows, "--holdout": holdout}
        output_file("--output", output, read)
    from mixup_hf.data.tables import read_table

    table = read_table(data, text_column, label_column)
    if (rows is None) != (holdout is None):
        raise errors.InvalidInput("--rows and --holdout belong together: give both, or neither.")
    unused = [name for name in given(context) if name in _ONLY_WITHOUT_ROWS]
    if rows is not None and unused:
        raise errors.InvalidInput(f"{', '.join(unused)} cannot be used with --rows.")
    if rows is not None and holdout is not None:
        others = read_table(holdout, text_column, label_column).texts
        found = _of_rows(rows, table, others, aligner, seed)
    else:
        how = {"method": method, "weights": weights, "hints": hints, "own_texts": own_texts}
        found = _of_a_run(table, num_samples, canaries, how, aligner, seed)
    _show(Console(), found)
    if output is not None:
        content = asdict(found) | {"findings": found.findings, "verdict": found.verdict}
        output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _of_rows(rows: Path, table: LabelledTexts, others: list[str], aligner: str, seed: int) -> Audit:
    from mixup_hf.data.row_files import digest, read_shown
    from mixup_hf.data.row_formats import read_run
    from mixup_hf.evaluation.privacy import audit, require_enough
    from mixup_hf.generation.unlabeled import UNLABELED
    from mixup_hf.inverter.model import Inverter

    if not rows.is_file():
        raise errors.MissingFile(
            f"--rows: there is no file {str(rows)!r}. `mixup-hf augment` writes one."
        )

    if read_run(rows).get("texts_sha256") not in (None, digest(table.texts)):
        raise errors.InvalidInput(
            f"--rows: {rows} was generated from other texts than those of --data. Give the "
            "training texts as --data, and texts that nothing was generated from as --holdout."
        )
    # Unlabelled texts among the rows are what they are, and not made from the training texts.
    made = [row for row, _, _ in read_shown(rows) if row.method != UNLABELED]
    if not made or not all(row.shares for row in made):
        raise errors.InvalidInput(
            f"--rows: {rows} must hold rows with `shares`. Was it written with --no-provenance?"
        )
    lams = [max(row.shares) for row in made]
    texts = [row.text for row in made]
    require_enough(rows=len(texts), texts=len(table), holdout=len(others))
    inverter = Inverter.from_pretrained(aligner)
    return audit(texts, table.texts, others, inverter, lams=lams, seed=seed)


def _of_a_run(
    table: LabelledTexts,
    num_samples: int,
    canaries: int,
    how: dict[str, Any],
    aligner: str,
    seed: int,
) -> Audit:
    import torch

    from mixup_hf.evaluation.privacy import audit, plant, require_enough
    from mixup_hf.generation.summary import summarize
    from mixup_hf.judging.leaks import first_rows
    from mixup_hf.training.inversed import InversedMixup

    # A text on both sides would be its own copy.
    table = table.take(sorted({*first_rows(table.texts)}))
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed)).tolist()
    inside, outside = table.take(order[::2]), table.take(order[1::2])
    require_enough(num_samples=num_samples, texts=len(inside), holdout=len(outside))
    texts, labels, secrets = plant(inside.texts, inside.labels, canaries, seed)
    # Labels are not looked at: the member that costs least.
    settings = how | {"seed": seed, "committee": ("knn",)}
    mixup = InversedMixup.from_pretrained(aligner, texts, labels, **settings)
    made = mixup.generate(num_samples)
    typer.echo(str(summarize(made)), err=True)
    return audit(
        [row.text for row in made],
        texts,
        outside.texts,
        mixup.inverter,
        lams=[max(row.shares) for row in made],
        secrets=secrets,
        seed=seed,
    )


def _show(console: Console, found: Audit) -> None:
    table = Table("what", "found", "by chance", title=f"Audit of {found.rows} rows")
    table.add_row("nearer to a training text", str(found.nearer), "50 %")
    table.add_row("nearly a training text", str(found.copies), str(found.chance_copies))
    table.add_row("membership: AUC", str(found.auc), "0.5")
    positives = found.true_positives or f"needs 100 texts, there are {found.texts}"
    table.add_row("membership: found at 1 % false alarms", str(positives), "0.01")
    if found.canaries is not None:
        table.add_row("planted secrets, word for word", str(found.canaries), "0")
    for name, rate in found.nearer_by_lam.items():
        table.add_row(f"nearer, larger share {name}", str(rate), "50 %")
    for name, rate in found.copies_by_lam.items():
        table.add_row(f"copies, larger share {name}", str(rate), "")
    console.print(table)
    console.print(found.verdict)
