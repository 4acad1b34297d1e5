"""`mixup-hf align`: train an aligner for an encoder and an LLM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixup_hf.cli.finetune import print_keys
from mixup_hf.config import AlignConfig
from mixup_hf.loading import load_config


def command(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Argument(help="YAML file; its values are defaults.")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List all keys and stop.")] = False,
) -> None:
    """Train projector and LoRA on unlabelled sentences; started again, it goes on where it was.

    Every key of the config can be given as an option, which wins over the file:

        mixup-hf align recipes/configs/align/small.yaml --data sentences.txt --max_minutes 30
    """
    console = Console()
    if keys:
        print_keys(console, AlignConfig)
        return
    settings = load_config(AlignConfig, config, context.args)
    from mixup_hf.align import align

    folder = align(settings)
    console.print(f"Use it with: --mixup.aligner {folder}", soft_wrap=True)
