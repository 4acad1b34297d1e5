"""`mixup-hf align`: train an aligner for an encoder and an LLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixup_hf.cli.options import ConfigFile, Keys, print_settings, takes_settings
from mixup_hf.cli.paths import output_folder
from mixup_hf.config import AlignConfig, FidelityConfig
from mixup_hf.config.load import load_config
from mixup_hf.registry import register


@register("command", "align", help="train an aligner, or measure one")
@takes_settings(AlignConfig, FidelityConfig)
def command(
    overrides: Sequence[str],
    config: ConfigFile = None,
    keys: Keys = False,
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="ALIGNER",
            help="Measure this aligner on --data instead of training one; --keys then lists the "
            "settings of the measurement.",
        ),
    ] = None,
) -> None:
    """Train an aligner, projector and LoRA, on unlabelled sentences; or measure one.

    A run that was interrupted is resumed. Every setting can be given in a YAML file, as an option,
    or both; the option wins:

        mixup-hf align config.yaml --data sentences.txt --max-minutes 30

    To measure an aligner on sentences of --min-words to --max-words:

        mixup-hf align --evaluate embedded --data heldout.txt.gz --max-sentences 300
    """
    console = Console()
    if keys:
        print_settings(console, AlignConfig if evaluate is None else FidelityConfig)
        return
    if evaluate is not None:
        _evaluate(console, evaluate, config, overrides)
        return
    settings = load_config(AlignConfig, config, overrides)
    output_folder("--output-dir", settings.output_dir)
    from mixup_hf.align import align

    folder = align(settings)
    console.print(f"Use it with: --mixup.aligner {folder}", soft_wrap=True)


def _evaluate(console: Console, aligner: str, path: Path | None, overrides: Sequence[str]) -> None:
    settings = load_config(FidelityConfig, path, overrides)
    if settings.output_dir is not None:
        output_folder("--output-dir", settings.output_dir)
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
        num_mixes=settings.num_mixes,
        num_candidates=settings.best_of,
        corrections=settings.corrections,
        close_enough=settings.close_enough,
        seed=settings.seed,
    )
    title = f"{aligner} on {Path(settings.data).name}"
    fidelity.show(console, found, title)
    if settings.output_dir is not None:
        for path in fidelity.write(Path(settings.output_dir), found, title):
            console.print(f"written: {path}", soft_wrap=True)
