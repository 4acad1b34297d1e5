"""The default engine: fast where it can run the LLM, else transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixup_hf.inverter.engines.base import Engine, LocalChoice
from mixup_hf.inverter.engines.fast import Fast
from mixup_hf.inverter.engines.transformers import Transformers
from mixup_hf.registry import register

if TYPE_CHECKING:
    import torch


@register("engine", "auto", help="fast where it can run the LLM, else transformers")
class Auto(LocalChoice):
    """Chooses between the engines that run in this process."""

    copies_weights = True

    def why_not(self, llm: Any) -> str | None:
        """As for `fast`."""
        return Fast().why_not(llm)

    def load(self, llm: Any, dtype: torch.dtype | None) -> Engine:
        """The fast engine where the LLM can be packed."""
        choice = Fast() if self.why_not(llm) is None else Transformers()
        return choice.load(llm, dtype)
