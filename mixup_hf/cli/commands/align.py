"""`mixup-hf align`: train an aligner for an encoder and an LLM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixup_hf.cli.commands.finetune import config_and_overrides, print_keys
from mixup_hf.config import AlignConfig, FidelityConfig
from mixup_hf.loading import load_config
from mixup_hf.registry import register


@register("command", "align", help="train an aligner, or measure one")
def command(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Argument(help="YAML file; its values are defaults.")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List all keys and stop.")] = False,
    evaluate: Annotated[
        str | None, typer.Option(help="Measure this aligner on --data instead of training.")
    ] = None,
) -> None:
    """Train projector and LoRA on unlabelled sentences; started again, it goes on where it was.

    Every key of the config can be given as an option, which wins over the file:

        mixup-hf align recipes/configs/align/small.yaml --data sentences.txt --max_minutes 30

    Measure one instead, on sentences of --min_words to --max_words; `--keys --evaluate NAME` lists
    what can be set:

        mixup-hf align --evaluate embedded --data heldout.txt.gz --max_sentences 300
    """
    console = Console()
    if keys:
        print_keys(console, AlignConfig if evaluate is None else FidelityConfig)
        return
    path, overrides = config_and_overrides(config, context.args)
    if evaluate is not None:
        _evaluate(console, evaluate, path, overrides)
        return
    settings = load_config(AlignConfig, path, overrides)
    from mixup_hf.align import align

    folder = align(settings)
    console.print(f"Use it with: --mixup.aligner {folder}", soft_wrap=True)


def _evaluate(console: Console, aligner: str, path: Path | None, overrides: list[str]) -> None:
    settings = load_config(FidelityConfig, path, overrides)
    import torch

    from mixup_hf.align.data import read_with_origins
    from mixup_hf.cli.pages import fidelity
    from mixup_hf.evaluation.fidelity import measure_fidelity
    from mixup_hf.inverter.model import Inverter

    sentences, origins = read_with_origins(
        settings.data,
        settings.origins,
        text_column=settings.text_column,
        min_words=settings.min_words,
        max_words=settings.max_words,
        limit=settings.max_sentences,
    )
    inverter = Inverter.from_pretrained(
        aligner,
        quantization=settings.quantization,
        dtype=getattr(torch, settings.dtype),
    )
    found = measure_fidelity(
        inverter,
        sentences,
        origins=origins,
        num_pairs=settings.num_pairs,
        num_candidates=settings.best_of,
        seed=settings.seed,
    )
    title = f"{aligner} on {Path(settings.data).name}"
    fidelity.show(console, found, title)
    if settings.output_dir is not None:
        for path in fidelity.write(Path(settings.output_dir), found, title):
            console.print(f"written: {path}", soft_wrap=True)
