"""What an inverter is made of: an aligner and its partners, found, checked and loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mixup_hf.data.sources import resolve
from mixup_hf.data.wheels import file_sha256
from mixup_hf.inverter.checkpoint import (
    LORA_FOLDER,
    Aligner,
    AlignerConfig,
    AlignerMismatchError,
    check_partner,
    load_aligner,
)
from mixup_hf.inverter.encoder import FrozenEncoder
from mixup_hf.inverter.engines.packed_cpu import why_not_packed
from mixup_hf.inverter.quantization import (
    Quantization,
    default_dtype,
    default_quantization,
    load_llm,
)

EMBEDDED_ALIGNER = "embedded"


@dataclass(frozen=True)
class Parts:
    """An aligner, its encoder and its LLM, on their device.

    Attributes:
        encoder: The frozen encoder.
        aligner: Projector and config.
        llm: The LLM with the aligner's LoRA, merged unless it is held in 4 bits.
        tokenizer: The LLM's.
        folder: The aligner's checkpoint.
        fingerprint: Digest of the aligner's weights.
        quantization: How the LLM's weights are held.
    """

    encoder: FrozenEncoder
    aligner: Aligner
    llm: Any
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    fingerprint: str
    quantization: Quantization


def load_parts(
    aligner: str,
    *,
    revision: str | None,
    quantization: Quantization | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    engine: str,
) -> Parts:
    """Load what `Inverter.from_pretrained` is asked for; its arguments are explained there.

    Raises:
        AlignerMismatchError: The checkpoint is damaged, or its encoder or LLM is not the one it was
            trained for.
        SourceError: A base model cannot be had.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    folder = aligner_folder(aligner, revision)
    loaded = load_aligner(folder)
    config = loaded.config
    encoder_source = resolve(config.encoder, revision=hub_revision(config.encoder_revision))
    check_partner("encoder", config.encoder_fingerprint, encoder_source)
    llm_source = resolve(config.llm, revision=hub_revision(config.llm_revision))
    check_partner("LLM", config.llm_fingerprint, llm_source)
    encoder = FrozenEncoder.from_pretrained(
        encoder_source.path,
        device=where,
        pooling=config.pooling,
        normalize=config.normalize,
        prefix=config.encoder_prefix,
    )
    quantization = quantization or default_quantization(where)
    # The fast engine rounds a copy; what it copies, and merges the LoRA into, is not rounded.
    exact = where.type == "cpu" and engine != "transformers" and quantization == "none"
    llm = load_llm(
        llm_source.path,
        quantization=quantization,
        dtype=torch.float32 if exact else dtype or default_dtype(where),
        device=where,
        base_grid=config.base_grid,
    )
    if exact and why_not_packed(llm) is not None:
        llm.to(dtype or default_dtype(where))
    _check_dimensions(config, encoder, llm)
    return Parts(
        encoder,
        loaded.to(where),  # type: ignore[arg-type]
        _with_lora(llm, folder, merge=quantization == "none"),
        AutoTokenizer.from_pretrained(llm_source.path),
        folder,
        _fingerprint(folder),
        quantization,
    )


def aligner_folder(aligner: str, revision: str | None = None) -> Path:
    """The folder of an aligner given as `"embedded"`, a folder, or a Hub id."""
    if aligner != EMBEDDED_ALIGNER:
        return resolve(aligner, revision=revision).path
    with as_file(files("mixup_hf.inverter") / "embedded_aligner") as folder:
        if not (folder / "config.json").is_file():
            raise AlignerMismatchError(
                "The embedded aligner is missing from this installation. Reinstall mixup_hf."
            )
        return folder


def describe_aligner(aligner: str) -> str:
    """One line on an aligner, without loading its partners."""
    config = load_aligner(aligner_folder(aligner)).config
    hints = f"{config.num_hints} hints and " if config.num_hints else ""
    return (
        f"{aligner}: {config.encoder} -> {hints}{config.num_soft_tokens} soft tokens -> "
        f"{config.llm}"
    )


def hub_revision(revision: str | None) -> str | None:
    """A commit to ask the Hub for; the digest of an embedded wheel is none."""
    return revision if revision is not None and len(revision) == 40 else None


def _with_lora(llm: Any, folder: Path, *, merge: bool) -> Any:
    """The LLM with the checkpoint's LoRA; merged, it costs nothing at each step.

    Into 4-bit weights it is not merged: that would round it away.
    """
    if not (folder / LORA_FOLDER / "adapter_config.json").is_file():
        return llm
    if not (folder / LORA_FOLDER / "adapter_model.safetensors").is_file():
        raise AlignerMismatchError(
            f"The LoRA in {folder / LORA_FOLDER} has no adapter_model.safetensors (other formats "
            "are not read). Fetch the aligner again."
        )
    from peft import PeftModel

    try:
        model: Any = PeftModel.from_pretrained(llm, str(folder / LORA_FOLDER)).eval()
    except Exception as error:  # a cut safetensors file, or a LoRA for other layers
        raise AlignerMismatchError(
            f"The LoRA in {folder / LORA_FOLDER} cannot be loaded ({error}). It is damaged or "
            "belongs to another LLM: fetch the aligner again."
        ) from error
    return model.merge_and_unload() if merge else model


def _check_dimensions(config: AlignerConfig, encoder: FrozenEncoder, llm: Any) -> None:
    pairs = (
        ("encoder", config.embedding_dim, encoder.embedding_dim),
        ("LLM", config.llm_dim, llm.get_input_embeddings().weight.shape[1]),
    )
    for kind, expected, found in pairs:
        if expected != found:
            raise AlignerMismatchError(
                f"This aligner was trained for another {kind}: its vectors have {found} entries, "
                f"the aligner expects {expected}. Use the {kind} its model card names."
            )


def _fingerprint(folder: Path) -> str:
    digests = [
        file_sha256(path)
        for path in (
            folder / "model.safetensors",
            folder / LORA_FOLDER / "adapter_model.safetensors",
        )
        if path.is_file()
    ]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]
