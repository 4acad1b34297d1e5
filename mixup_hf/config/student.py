"""What can be set about the part of a model that is fine-tuned."""

from __future__ import annotations

from pydantic import Field

from mixup_hf.config._base import Number, Whole, settings


@settings
class LoraConfig:
    """A LoRA, with which a student is trained instead of all its weights."""

    r: Whole = Field(default=16, ge=1, description="Rank.")
    lora_alpha: Whole = Field(default=32, ge=1, description="Scale.")
    lora_dropout: Number = Field(default=0.05, ge=0, lt=1, description="Dropout before the LoRA.")
    target_modules: str | tuple[str, ...] = Field(
        default="all-linear", description="Modules that get a LoRA, as peft names them."
    )
