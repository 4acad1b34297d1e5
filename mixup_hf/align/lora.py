"""The LoRA in training: a new one as configured, or that of the aligner it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mixup_hf import errors
from mixup_hf.config import AlignConfig
from mixup_hf.inverter.lora import LORA_FOLDER, AlignerMismatchError, read_adapter_config

_RANK, _ALPHA = 16, 32  # of a new LoRA, by default
_GIVEN = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_layers": "layers_to_transform"}


def with_lora(llm: Any, config: AlignConfig, start: Path | None = None) -> Any:
    """The LLM with a LoRA in float32.

    Args:
        llm: The frozen LLM.
        config: Rank, scale and layers of a new LoRA.
        start: The checkpoint whose LoRA goes on, with its own rank, scale and layers. The weights
            are loaded by `load_lora`. None, or a checkpoint without a LoRA, makes a new one.

    Raises:
        InvalidInput: The config asks for another rank, scale or share of layers than `start` has.
    """
    from peft import LoraConfig, get_peft_model

    upper = _upper_layers(llm, config.lora_layers or 1.0)
    lora = LoraConfig(
        r=config.lora_r or _RANK,
        lora_alpha=config.lora_alpha or _ALPHA,
        # peft wants names where layers are chosen; "all-linear" is the same modules.
        target_modules="all-linear" if upper is None else _linear_names(llm),
        task_type="CAUSAL_LM",
        layers_to_transform=upper,
    )
    if start is not None and (start / LORA_FOLDER / "adapter_config.json").is_file():
        read_adapter_config(start / LORA_FOLDER)  # refuses what peft must not read
        saved = LoraConfig.from_pretrained(str(start / LORA_FOLDER))
        _refuse_others(config, lora, saved)
        lora = saved
        lora.inference_mode = False
    wrapped: Any = get_peft_model(llm, lora)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()  # bf16 is too coarse for small updates
    if config.bf16:
        for module in wrapped.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                # Autocast chooses the type of every product; peft's own cast to float32 would
                # only move memory.
                module.cast_input_dtype_enabled = False
    return wrapped


def load_lora(llm: Any, folder: Path) -> None:
    """Load the LoRA weights of a checkpoint, if it has any.

    Raises:
        AlignerMismatchError: They are not those of the LLM's LoRA.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = folder / LORA_FOLDER / "adapter_model.safetensors"
    if not weights.is_file():
        return
    state = load_file(weights)
    differing = sorted(set(state) ^ set(get_peft_model_state_dict(llm)))
    if differing:
        raise AlignerMismatchError(
            f"{weights} does not belong to this LoRA: {len(differing)} weights exist in only "
            f"one of the two, such as {differing[0]}. Use another `output_dir`, or delete "
            f"{folder.parent}."
        )
    set_peft_model_state_dict(llm, state)


def _refuse_others(config: AlignConfig, asked: Any, saved: Any) -> None:
    """A LoRA goes on as it is: a setting that was given, and differs, is an error."""
    for name, attribute in _GIVEN.items():
        value = getattr(config, name)
        wanted, found = getattr(asked, attribute), getattr(saved, attribute)
        if value is not None and wanted != found:
            shown = found if name != "lora_layers" else f"the layers {found or 'all'}"
            raise errors.bad(
                name,
                f"be left out with `start_from`, whose LoRA has {shown}",
                value,
                "A LoRA cannot change its shape or scale as it trains on; train a new aligner.",
            )


def _linear_names(llm: Any) -> list[str]:
    """Last names of the linear modules inside the decoder layers."""
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in llm.get_decoder().named_modules()
            if isinstance(module, torch.nn.Linear)
        }
    )


def _upper_layers(llm: Any, share: float) -> list[int] | None:
    if share == 1.0:
        return None
    count = int(llm.config.get_text_config().num_hidden_layers)
    return list(range(count - max(1, round(share * count)), count))
