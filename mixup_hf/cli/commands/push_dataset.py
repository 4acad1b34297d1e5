"""`mixup-hf push-dataset`: generated rows to the Hub, with a data card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixup_hf.registry import register


@register("command", "push-dataset", help="upload generated rows to the Hub, with a data card")
def command(
    rows: Annotated[Path, typer.Argument(help="Rows written by `mixup-hf augment` or a run.")],
    repo: Annotated[
        str, typer.Argument(help="USER/NAME on the Hub; created if it does not exist.")
    ],
    license: Annotated[
        str,
        typer.Option(help="Licence of the texts the rows were generated from, such as cc-by-4.0."),
    ],
    source: Annotated[str, typer.Option(help="Name or address of those texts, for the card.")] = "",
    audit: Annotated[
        Path | None, typer.Option(help="What `mixup-hf audit --output` wrote, for the card.")
    ] = None,
    parents: Annotated[
        bool,
        typer.Option("--parents", help="Upload parents' texts and rows that repeat real texts."),
    ] = False,
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
) -> None:
    """Upload generated rows as a data set that `datasets.load_dataset("USER/NAME")` reads.

    Without --parents no training text is uploaded: neither the parents' texts nor rows that repeat
    one.
    """
    from mixup_hf.generation.publishing import push_rows

    pushed = push_rows(
        rows,
        repo,
        license=license,
        source=source,
        audit=audit,
        parents=parents,
        private=private,
    )
    console = Console()
    if pushed.left_out:
        console.print(
            f"{pushed.left_out} rows repeat real texts and were left out (--parents uploads them)",
            soft_wrap=True,
            highlight=False,
        )
    console.print(f"pushed {pushed.rows} rows: {pushed.url}", soft_wrap=True, highlight=False)
