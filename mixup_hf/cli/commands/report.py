"""`mixup-hf report`: one HTML file about a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mixup_hf import errors
from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.inverter.encoder import FrozenEncoder


@register("command", "report", help="one HTML page about a run")
def command(
    folder: Annotated[Path, typer.Argument(help="output_dir of mixup-hf finetune.")],
    output: Annotated[
        Path | None, typer.Option(help="The file to write; default: report.html in the folder.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="Embeds texts for the map; none leaves the map out.")
    ] = "all-minilm-l6-v2",
) -> None:
    """Write one HTML file: what was generated, what it was worth, what was found wrong with it.

    It opens without a network, on a phone and in print.
    """
    from mixup_hf.evaluation.report.html import report_of_a_run

    if (folder / "runs.jsonl").is_file():
        raise errors.InvalidInput(
            f"{folder} holds an experiment: `mixup-hf evaluate CONFIG.yaml` writes its "
            "report.html, and does so again without running anything that is there."
        )
    page = report_of_a_run(folder, _encoder(encoder))
    target = output or folder / "report.html"
    target.write_text(page, encoding="utf-8")
    Console().print(f"written: {target}", soft_wrap=True)


def _encoder(name: str) -> FrozenEncoder | None:
    if name == "none":
        return None
    from mixup_hf.data.sources import resolve
    from mixup_hf.inverter.encoder import FrozenEncoder

    return FrozenEncoder.from_pretrained(resolve(name).path)
