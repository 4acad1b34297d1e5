"""`mixup-hf push`: an aligner checkpoint to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixup_hf.registry import register


@register("command", "push", help="upload an aligner to the Hub")
def command(
    folder: Annotated[Path, typer.Argument(help="The aligner checkpoint to upload.")],
    repo: Annotated[
        str, typer.Argument(help="USER/NAME on the Hub; created if it does not exist.")
    ],
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
) -> None:
    """Upload an aligner to the Hub, to be loaded with `Inverter.from_pretrained("USER/NAME")`."""
    from mixup_hf.inverter.hub import push_folder

    address = push_folder(folder, repo, private=private)
    Console().print(f"pushed: {address}", soft_wrap=True)
