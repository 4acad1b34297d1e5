"""`mixup-hf export`: the LLM with its LoRA merged in, for a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixup_hf.registry import register


@register("command", "export", help="write an aligner's merged LLM for a vLLM server")
def command(
    folder: Annotated[Path, typer.Argument(help="Where the LLM is written.")],
    aligner: Annotated[str, typer.Option(help="embedded, a folder, or a Hub id.")] = "embedded",
) -> None:
    """Write an aligner's LLM, its LoRA merged in, and say how a vLLM server is started with it.

    Sentences are then decoded there: mixup.engine: vllm:http://HOST:8000.
    """
    import torch

    from mixup_hf.inverter.model import Inverter

    inverter = Inverter.from_pretrained(
        aligner,
        quantization="none",
        device="cpu",
        dtype=torch.bfloat16,
        engine="transformers",
    )
    written = inverter.export_llm(folder)
    console = Console()
    console.print(f"written: {written}", soft_wrap=True)
    console.print(
        f"vllm serve {written} --enable-prompt-embeds --max-model-len 256", soft_wrap=True
    )
