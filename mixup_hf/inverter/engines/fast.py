"""The fast engine: a packed copy of a Llama-like LLM, for decoding on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixup_hf import errors
from mixup_hf.inverter.engines.base import Engine, LocalChoice
from mixup_hf.registry import register

if TYPE_CHECKING:
    import torch


@register("engine", "fast", help="a packed copy of a Llama-like LLM, on a CPU")
class Fast(LocalChoice):
    """Packs a copy of the weights in the layout the CPU multiplies fastest."""

    copies_weights = True

    def why_not(self, llm: Any) -> str | None:
        """Why this LLM cannot be packed; None if it can."""
        from mixup_hf.inverter.engines._packed import why_not_packed

        return why_not_packed(llm)

    def load(self, llm: Any, dtype: torch.dtype | None) -> Engine:
        """Pack a copy of the weights in `dtype`; default: bf16 where the CPU supports it."""
        from mixup_hf.inverter.engines._packed import PackedLlm, fast_dtype

        reason = self.why_not(llm)
        if reason is not None:
            raise errors.InvalidInput(
                f"`engine` = 'fast' cannot run this LLM: {reason}. Use 'transformers' or 'auto'."
            )
        return PackedLlm(llm, dtype or fast_dtype())
