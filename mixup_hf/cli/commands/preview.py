"""`mixup-hf preview`: what lies between two texts."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mixup_hf import errors
from mixup_hf.cli.options import Aligner
from mixup_hf.registry import register


@register("command", "preview", help="the sentences between two texts")
def command(
    a: Annotated[str, typer.Option(help="First text, at λ = 1.")],
    b: Annotated[str, typer.Option(help="Second text, at λ = 0.")],
    steps: Annotated[int, typer.Option(help="How many sentences, both ends included.")] = 5,
    aligner: Aligner = "embedded",
    num_candidates: Annotated[
        int, typer.Option(help="Candidates per sentence; the closest is kept. 1 decodes greedily.")
    ] = 1,
    corrections: Annotated[
        int, typer.Option(help="How often a sentence is corrected; the closest is kept.")
    ] = 0,
    close_enough: Annotated[
        float | None, typer.Option(help="Cosine at which a sentence is not decoded again.")
    ] = None,
    hints: Annotated[
        Literal["embedding", "parents"],
        typer.Option(help="Hint words from the mixed embedding alone, or from both texts too."),
    ] = "embedding",
    length: Annotated[
        Literal["match", "free"],
        typer.Option(help="About as long as the two texts, or as the LLM likes."),
    ] = "match",
    seed: Annotated[int, typer.Option(help="Seed of the sampling, with several candidates.")] = 0,
) -> None:
    """Show the sentences between two texts.

    "λ found" is the ratio at which a decoded sentence lies once it is embedded again.
    """
    errors.at_least("--steps", steps, 2)
    errors.texts("--a, --b", [a, b])
    import torch

    from mixup_hf.evaluation.ratio_recovery import recovered_lam
    from mixup_hf.inverter.decoding import lengths_between
    from mixup_hf.inverter.model import Inverter

    # Not in bf16: what is printed shall be the same on every CPU.
    inverter = Inverter.from_pretrained(aligner, dtype=torch.float32)
    lams = [1 - step / (steps - 1) for step in range(steps)]
    texts = inverter.interpolate(
        a,
        b,
        lams,
        hints,
        temperature=0.0 if num_candidates == 1 else 0.7,
        num_candidates=num_candidates,
        corrections=corrections,
        close_enough=close_enough,
        seed=seed,
        lengths=lengths_between(inverter, a, b, lams) if length == "match" else None,
    )
    ends, decoded = inverter.encode([a, b]), inverter.encode(texts)
    found = recovered_lam(decoded, ends[0], ends[1])
    table = Table(title=f"[b]{escape(a)}[/]  →  [b]{escape(b)}[/]", title_justify="left")
    for name in ("λ asked", "λ found", "sentence"):
        table.add_column(name, justify="right" if name.startswith("λ") else "left")
    for lam, ratio, text in zip(lams, found.tolist(), texts, strict=True):
        table.add_row(f"{lam:.2f}", f"{ratio:.2f}", escape(text))
    Console().print(table)
