"""`mixup-hf report`: one HTML file about a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mixup_hf import errors
from mixup_hf.cli.paths import output_file
from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.inverter.encoder import FrozenEncoder


@register("command", "report", help="one HTML page about a run")
def command(
    folder: Annotated[Path, typer.Argument(help="Output directory of `mixup-hf finetune`.")],
    output: Annotated[
        Path | None, typer.Option(help="HTML file to write. Default: report.html in the folder.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="Encoder for the map of texts; `none` leaves the map out.")
    ] = "all-minilm-l6-v2",
) -> None:
    """Write one self-contained HTML page: what was generated, how it scored, what was rejected."""
    if not folder.is_dir():
        raise errors.MissingFile(f"There is no folder {str(folder)!r}.")
    target = output or folder / "report.html"
    output_file("--output", target)
    from mixup_hf.evaluation.report.html import report_of_a_run

    if (folder / "runs.jsonl").is_file():
        raise errors.InvalidInput(
            f"{folder} holds an experiment. `mixup-hf evaluate CONFIG.yaml` writes its "
            "report.html; finished runs are not repeated."
        )
    _check(folder / "metrics.json")
    page = report_of_a_run(folder, _encoder(encoder))
    target.write_text(page, encoding="utf-8")
    Console().print(f"written: {target}", soft_wrap=True)


def _check(file: Path) -> None:
    """Raise for metrics that are none: of another program, or edited."""
    from mixup_hf.evaluation.report.pages import read_json

    metrics = read_json(file)
    scores = metrics if isinstance(metrics, dict) else {"": None}
    for name, value in scores.items():
        if not name.startswith(("test_", "train_")) and name:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise errors.InvalidInput(
                f"{file} is damaged, or of another program: {name or 'its content'} is "
                f"{value!r:.100}, not a number. Run again into its folder."
            )


def _encoder(name: str) -> FrozenEncoder | None:
    if name == "none":
        return None
    from mixup_hf.data.sources import resolve
    from mixup_hf.inverter.encoder import FrozenEncoder

    return FrozenEncoder.from_pretrained(resolve(name).path)
