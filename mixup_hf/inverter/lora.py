"""The LoRA beside an aligner: saved by peft, merged without it where that is possible.

Importing peft imports bitsandbytes, which takes seconds and, on many CPUs, prints that a kernel is
missing. A plain LoRA is three lines of arithmetic, so unquantized weights need neither.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import linear

from mixup_hf import errors
from mixup_hf.inverter.pretrained import check_files, require_finite

LORA_FOLDER = "lora"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Settings that change what merging means; where one is set, peft does it.
_NOT_PLAIN = (
    "use_dora",
    "fan_in_fan_out",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
)


class AlignerMismatchError(errors.InvalidInput):
    """An aligner does not fit its encoder, its LLM or this version of the format."""


def load_lora(llm: Any, checkpoint: Path, *, merge: bool) -> Any:
    """The LLM with the LoRA of an aligner checkpoint; the LLM itself if there is none.

    Args:
        llm: The causal LM.
        checkpoint: The aligner's folder.
        merge: Merge the LoRA into the weights, which makes it free at each step. Not possible with
            4-bit weights, which would round it away.

    Raises:
        AlignerMismatchError: The LoRA is damaged, of another format, or made for another LLM.
    """
    folder = checkpoint / LORA_FOLDER
    if not (folder / "adapter_config.json").is_file():
        return llm
    if not (folder / _WEIGHTS).is_file():
        raise AlignerMismatchError(
            f"The LoRA in {folder} has no {_WEIGHTS} (other formats are not read). Fetch the "
            "aligner again."
        )
    try:
        check_files(folder)
        config, state = read_adapter_config(folder), load_file(folder / _WEIGHTS)
        _check_weights(config, state)
        if merge and _is_plain(config):
            return _merge(llm, config, state)
        from peft import PeftModel, get_peft_model_state_dict

        # Without a device, peft reads the weights onto the first GPU, in every process.
        device = str(llm.get_input_embeddings().weight.device)
        model: Any = PeftModel.from_pretrained(llm, str(folder), torch_device=device).eval()
        differing = sorted(set(state) ^ set(get_peft_model_state_dict(model)))
        if differing:  # peft would only warn
            raise ValueError(f"{len(differing)} weights are unknown or missing: {differing[0]}")
    except errors.MixupError:
        raise
    except Exception as error:  # a cut safetensors file, or a LoRA for other layers
        raise AlignerMismatchError(
            f"The LoRA in {folder} cannot be loaded ({error}). It is damaged or belongs to another "
            "LLM: fetch the aligner again."
        ) from error
    return model.merge_and_unload() if merge else model


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The config of a LoRA, without what would make peft import modules or fetch models.

    Raises:
        AlignerMismatchError: It is of another kind, or asks for one of those.
        ValueError: It is no JSON, or its rank or scale is no positive number.
    """
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        raise AlignerMismatchError(
            f"The adapter in {folder} is of type {config.get('peft_type')!r}, expected 'LORA'. "
            "Fetch the aligner again."
        )
    if config.get("megatron_config"):  # peft would import the module that `megatron_core` names
        raise AlignerMismatchError(
            f"The LoRA in {folder} sets `megatron_config`, by which a checkpoint can have any "
            "module imported. That is never done: use another aligner."
        )
    if isinstance(config.get("target_modules"), str) and config["target_modules"] != "all-linear":
        raise AlignerMismatchError(
            f"The LoRA in {folder} gives `target_modules` as a pattern. Patterns are not read, "
            "since one can take forever to match: list the modules' names."
        )
    for name in ("r", "lora_alpha"):
        errors.positive(name, config[name])
    content: dict[str, Any] = config
    return content


def _check_weights(config: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    require_finite(state)
    for name, value in state.items():
        if not value.is_floating_point():
            raise ValueError(f"{name} is of type {value.dtype}, not of floating point numbers")
        is_factor = name.endswith(".lora_A.weight") and _is_plain(config)
        if is_factor and value.shape[0] != config["r"]:
            raise ValueError(f"{name} has rank {value.shape[0]}, but its config says {config['r']}")


@contextmanager
def without_lora(llm: Any, checkpoint: Path | None) -> Iterator[None]:
    """Forward passes of this thread as if the LLM had no LoRA, be it merged or not.

    What the LoRA adds is subtracted after each of its layers, so other threads may go on decoding.
    A LoRA that peft merged stays in effect.

    Args:
        llm: The causal LM, not wrapped by peft.
        checkpoint: The folder of the aligner whose LoRA it has; None for an LLM without one.
    """
    folder = None if checkpoint is None else checkpoint / LORA_FOLDER
    if folder is None or not (folder / _WEIGHTS).is_file():
        yield
        return
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if not _is_plain(config):
        yield
        return
    here = threading.get_ident()
    device = llm.get_input_embeddings().weight.device
    scaling, handles = _scaling(config), []
    for layer, down, up in _factors(load_file(folder / _WEIGHTS, device=str(device))):

        def subtract(
            module: Any, inputs: Any, output: torch.Tensor, down: Any = down, up: Any = up
        ) -> torch.Tensor | None:
            if threading.get_ident() != here:
                return None
            added = linear(linear(inputs[0].to(down.dtype), down), up) * scaling
            return output - added.to(output.dtype)

        handles.append(llm.get_submodule(layer).register_forward_hook(subtract))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def whole(value: torch.Tensor) -> torch.Tensor:
    """A weight in one piece; a shard of FSDP 2 is gathered from all processes."""
    from torch.distributed.tensor import DTensor

    if not isinstance(value, DTensor):
        return value
    gathered: torch.Tensor = value.full_tensor()
    return gathered


def lora_state(llm: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The LoRA of a peft model, in `dtype`. Collective under FSDP: every process calls it."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(llm)
    return {name: whole(value).to(dtype) for name, value in state.items()}


def save_lora(folder: Path, llm: Any, state: dict[str, torch.Tensor]) -> None:
    """Write the LoRA of a peft model, with the weights that `lora_state` returned."""
    llm.save_pretrained(folder, state_dict=state)
    (folder / "README.md").unlink(missing_ok=True)  # peft's template; the aligner has its own card
    config = folder / "adapter_config.json"
    content = json.loads(config.read_text())
    # peft writes a local path here; the aligner's config names the LLM.
    config.write_text(json.dumps(content | {"base_model_name_or_path": None}, indent=2) + "\n")


def _is_plain(config: dict[str, Any]) -> bool:
    """Whether W + scaling * B A is all there is to merging."""
    return (
        config.get("peft_type") == "LORA"
        and config.get("bias", "none") == "none"
        # Other kinds of initialization change the base weights.
        and config.get("init_lora_weights", True) in (True, False, "gaussian")
        and not any(config.get(name) for name in _NOT_PLAIN)
    )


@torch.no_grad()
def _merge(llm: Any, config: dict[str, Any], state: dict[str, torch.Tensor]) -> Any:
    scaling = _scaling(config)
    for layer, down, up in _factors(state):
        weight = llm.get_submodule(layer).weight.data
        weight += ((up @ down) * scaling).to(weight.device)
    return llm


def _scaling(config: dict[str, Any]) -> float:
    rank = config["r"]
    return float(config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank))


def _factors(state: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """The layers of a plain LoRA with their factors, A and B, float32."""
    ends = (".lora_A.weight", ".lora_B.weight")
    layers = {name.removesuffix(ends[0]).removesuffix(ends[1]) for name in state}
    if len(state) != 2 * len(layers):
        raise ValueError(f"unexpected tensors among {sorted(state)[:3]}, ...")
    for layer in sorted(layers):
        down, up = (state[layer + end].float() for end in ends)
        yield layer.removeprefix(_PREFIX), down, up
