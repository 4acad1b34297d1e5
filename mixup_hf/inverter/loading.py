"""Loading an inverter: the aligner, its encoder and its LLM are resolved, checked and loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors
from mixup_hf.data.sources import resolve
from mixup_hf.data.wheels import file_sha256
from mixup_hf.inverter.aligner import Aligner, AlignerConfig
from mixup_hf.inverter.checkpoint import check_partner, load_aligner
from mixup_hf.inverter.encoder import FrozenEncoder
from mixup_hf.inverter.engines import find_engine
from mixup_hf.inverter.lora import LORA_FOLDER, AlignerMismatchError, load_lora
from mixup_hf.inverter.pretrained import load_tokenizer, readable
from mixup_hf.inverter.prompt import end_ids
from mixup_hf.inverter.quantization import (
    Quantization,
    default_dtype,
    default_quantization,
    load_llm,
)
from mixup_hf.runtime import device_of, on_device

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
    """Load the parts of an inverter; the arguments are those of `Inverter.from_pretrained`.

    Raises:
        AlignerMismatchError: The checkpoint is damaged, or its encoder or LLM is not the one it was
            trained for.
        SourceError: A base model cannot be fetched.
    """
    where = device_of(device)
    # A run is seeded before `from_pretrained`, or after: the caller's random state stays.
    with on_device(where), torch.random.fork_rng(devices=[]):
        return _load_parts(aligner, revision, quantization, where, dtype, engine)


def _load_parts(
    aligner: str,
    revision: str | None,
    quantization: Quantization | None,
    where: torch.device,
    dtype: torch.dtype | None,
    engine: str,
) -> Parts:
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
    choice, _ = find_engine(engine)
    # An engine that rounds a copy of the weights gets exact ones, into which the LoRA is merged.
    exact = where.type == "cpu" and quantization == "none" and choice.copies_weights
    llm = load_llm(
        llm_source.path,
        quantization=quantization,
        dtype=torch.float32 if exact else dtype or default_dtype(where),
        device=where,
        base_grid=config.base_grid,
    )
    if exact and choice.why_not(llm) is not None:
        llm.to(dtype or default_dtype(where))
    _check_dimensions(config, encoder, llm)
    tokenizer = load_tokenizer(llm_source.path)
    with readable(llm_source.path):
        end_ids(tokenizer, llm)
    return Parts(
        encoder,
        loaded.to(where),  # type: ignore[arg-type]
        load_lora(llm, folder, merge=quantization == "none"),
        tokenizer,
        folder,
        _fingerprint(folder, config.guidance),
        quantization,
    )


def aligner_folder(aligner: str, revision: str | None = None) -> Path:
    """The folder of an aligner given as `"embedded"`, a folder, or a Hub id."""
    if "/" not in aligner and aligner != EMBEDDED_ALIGNER and not Path(aligner).exists():
        rule = f"be {EMBEDDED_ALIGNER!r}, a folder, or a Hub id such as 'user/name'"
        meant = get_close_matches(aligner.lower(), [EMBEDDED_ALIGNER], n=1)
        raise errors.bad("aligner", rule, aligner, f"Did you mean {meant[0]!r}?" if meant else "")
    if aligner != EMBEDDED_ALIGNER:
        return resolve(aligner, revision=revision).path
    with as_file(files("mixup_hf.inverter") / "embedded_aligner") as folder:
        if not (folder / "config.json").is_file():
            raise AlignerMismatchError(
                "The embedded aligner is missing from this installation. Reinstall mixup_hf."
            )
        return folder


def describe_aligner(aligner: str) -> str:
    """Describe an aligner in one line, without loading its encoder and LLM."""
    config = load_aligner(aligner_folder(aligner)).config
    hints = f"{config.num_hints} hints and " if config.num_hints else ""
    return (
        f"{aligner}: {config.encoder} -> {hints}{config.num_soft_tokens} soft tokens -> "
        f"{config.llm}"
    )


def hub_revision(revision: str | None) -> str | None:
    """The revision if it is a Hub commit; the digest of an embedded wheel is not."""
    return revision if revision is not None and len(revision) == 40 else None


def _check_dimensions(config: AlignerConfig, encoder: FrozenEncoder, llm: Any) -> None:
    pairs = (
        ("encoder", config.embedding_dim, encoder.embedding_dim),
        ("LLM", config.llm_dim, llm.get_input_embeddings().weight.shape[1]),
    )
    for kind, expected, found in pairs:
        if expected != found:
            raise AlignerMismatchError(
                f"This aligner was trained for another {kind}: its embeddings have {found} "
                f"entries, but the aligner expects {expected}. Use the {kind} its model card names."
            )


def _fingerprint(folder: Path, guidance: float) -> str:
    """Digest of the weights, and of what else in a config decides the sentences."""
    digests = [
        file_sha256(path)
        for path in (
            folder / "model.safetensors",
            folder / LORA_FOLDER / "adapter_model.safetensors",
        )
        if path.is_file()
    ]
    digests += [f"guidance={guidance}"] if guidance else []
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]
