"""The reference engine: any causal LM, as transformers runs it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from mixup_hf.inverter.engines.base import Decoding, LocalChoice, dtype_name
from mixup_hf.registry import register

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_COMPACT_BELOW = 0.85


@register("engine", "transformers", help="any LLM, as transformers runs it")
class Transformers(LocalChoice):
    """Runs the LLM itself, in the type it was loaded in."""

    def load(self, llm: Any, dtype: torch.dtype | None) -> TransformersEngine:
        """Make the engine; `dtype` was applied when the LLM was loaded."""
        return TransformersEngine(llm)


class TransformersEngine:
    """An `Engine` for any causal LM.

    Args:
        llm: The causal LM; its weights are read at every step, so it may be in training.
    """

    def __init__(self, llm: Any) -> None:
        self.llm = llm

    @property
    def name(self) -> str:
        """`transformers:DTYPE`."""
        return f"transformers:{dtype_name(self.llm.get_input_embeddings().weight.dtype)}"

    def parts(self, count: int) -> int:
        """One: on an accelerator a larger batch is always better."""
        return 1

    def size_for(self, alive: int, size: int) -> int:
        """The unfinished rows, once they are few: compacting copies the whole cache."""
        return alive if alive < _COMPACT_BELOW * size else size

    def decoding(self, num_rows: int, length: int) -> Decoding:
        """Begin a batch; its cache grows as needed."""
        return _TransformersDecoding(self.llm)


class _TransformersDecoding:
    def __init__(self, llm: Any) -> None:
        from transformers import DynamicCache

        self._llm = llm
        self._table = llm.get_input_embeddings()
        self._cache = DynamicCache(config=llm.config)
        self._cache_argument = cache_argument(llm)

    def start(self, prompts: Tensor) -> Tensor:
        logits: Tensor = self._llm(
            inputs_embeds=prompts.to(self._table.weight.dtype),
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_argument: self._cache},
        ).logits
        return logits[:, -1]

    def step(self, tokens: Tensor) -> Tensor:
        return self.start(self._table(tokens)[:, None])

    def keep(self, rows: Tensor) -> None:
        self._cache.batch_select_indices(rows)


def cache_argument(llm: Any) -> str:
    """How this LLM's forward names its cache: `cache`, or `past_key_values` in older releases."""
    return "cache" if "cache" in inspect.signature(llm.forward).parameters else "past_key_values"
