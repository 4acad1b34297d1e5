"""`mixup-hf export`: the LLM with its LoRA merged in, for a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixup_hf.cli.options import Aligner
from mixup_hf.cli.paths import output_folder
from mixup_hf.registry import register


@register("command", "export", help="write an aligner's merged LLM for a vLLM server")
def command(
    folder: Annotated[Path, typer.Argument(help="Folder to write the LLM to.")],
    aligner: Aligner = "embedded",
) -> None:
    """Write an aligner's LLM with its LoRA merged in, for a vLLM server.

    The command that starts the server is printed. Decode on it with
    `--mixup.engine vllm:http://HOST:8000`.
    """
    output_folder("FOLDER", folder)
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
