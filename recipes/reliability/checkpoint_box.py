"""A tiny checkpoint to be damaged, and bait beside it.

The checkpoint is an aligner with a LoRA, its encoder and its LLM. The bait is a folder in which a
payload that ran would leave a file, and that no trial may change.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_inverter import save_partners
from trials import Fault, outcome, refused, unchanged

from mixup_hf import Inverter

CONFIGS = ("aligner/config.json", "encoder/config.json", "llm/config.json")
CONFIGS += ("aligner/lora/adapter_config.json", "encoder/tokenizer_config.json")
CONFIGS += ("llm/generation_config.json", "llm/tokenizer.json", "encoder/tokenizer.json")
WEIGHTS = ("aligner/model.safetensors", "aligner/lora/adapter_model.safetensors")
WEIGHTS += ("encoder/model.safetensors", "llm/model.safetensors")


@cache
def original() -> Path:
    """A checkpoint with its partners, made once."""
    from tiny import make_inverter, with_random_lora

    folder = Path(tempfile.mkdtemp(prefix="original-"))
    inverter = make_inverter()
    save_partners(inverter, folder)
    inverter.llm = with_random_lora(inverter.llm)
    inverter.save_pretrained(folder / "aligner")
    return folder


class Box:
    """A copy of the checkpoint, and bait beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bait = folder / "box", folder / "bait"
        shutil.copytree(original(), self.folder)
        self.bait.mkdir()
        (self.bait / "secret.json").write_text('{"secret": 1}')
        shutil.copyfile(original() / "llm/model.safetensors", self.bait / "model.safetensors")
        self.edit("aligner/config.json", encoder=self.path("encoder"), llm=self.path("llm"))

    def path(self, name: str) -> str:
        """A file or folder of the copy."""
        return str(self.folder / name)

    def edit(self, name: str, **changes: Any) -> None:
        """Change keys of a JSON file; make it if it does not exist."""
        file = self.folder / name
        content = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(content | changes))

    def weights(self, name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
        """Change the tensors of a safetensors file."""
        state = load_file(self.folder / name)
        change(state)
        save_file(state, self.folder / name, metadata={"format": "pt"})

    def use(self) -> list[str]:
        """Load the inverter and decode two sentences."""
        inverter = Inverter.from_pretrained(self.path("aligner"), device="cpu", dtype=torch.float32)
        sentences = inverter.invert(torch.eye(2, 16), seed=0)
        if len(sentences) != 2:
            raise Fault(f"{len(sentences)} sentences for two embeddings")
        return sentences

    def refused(self, *words: str) -> str:
        """Require that using it is refused, and that nothing happens to the bait."""
        with unchanged(self.bait):
            return refused(self.use, *words)

    def read(self) -> str:
        """Use it; either end is right, as long as nothing happens to the bait."""
        with unchanged(self.bait):
            return outcome(self.use)[0]


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, bait: Path) -> None:
        self.bait = bait

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.bait / "executed"),)
