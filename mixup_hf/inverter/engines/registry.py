"""What decodes: the LLM as transformers runs it, or the same LLM packed for this one job."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from mixup_hf import errors
from mixup_hf.inverter.engines.packed_cpu import PackedLlm, why_not_packed

ENGINES = ("auto", "transformers", "fast")
_COMPACT_BELOW = 0.85


class Decoding(Protocol):
    """One batch of sentences in the making."""

    def start(self, prompts: Tensor) -> Tensor:
        """Read prompt embeddings (B, P, H); the next tokens' logits (B, V)."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token (B,) for each row; the next tokens' logits (B, V)."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices into the batch as it is).

        A row may move forward only: `rows[i] >= i`.
        """
        ...


class Engine(Protocol):
    """An LLM that decodes batches."""

    @property
    def name(self) -> str:
        """What decodes, in which type; goes into the rows it makes."""
        ...

    def parts(self, count: int) -> int:
        """Into how many batches `count` rows had best be cut, to be decoded side by side.

        It depends on nothing else, the number of cores least: other batches round otherwise.
        """
        ...

    def size_for(self, alive: int, size: int) -> int:
        """How many rows a batch of `size` had best have when `alive` of them still go on."""
        ...

    def decoding(self, num_rows: int, length: int) -> Decoding:
        """Begin a batch of `num_rows` sequences of at most `length` positions, prompt included."""
        ...


class TransformersEngine:
    """The reference: any causal LM, as transformers runs it.

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
        """Those alive, once they are few: the whole cache is copied, which costs time as well."""
        return alive if alive < _COMPACT_BELOW * size else size

    def decoding(self, num_rows: int, length: int) -> Decoding:
        """Begin a batch; its cache grows as it needs to."""
        return _TransformersDecoding(self.llm)


class _TransformersDecoding:
    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._table = llm.get_input_embeddings()
        self._cache = DynamicCache(config=llm.config)

    def start(self, prompts: Tensor) -> Tensor:
        logits: Tensor = self._llm(
            inputs_embeds=prompts.to(self._table.weight.dtype),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]

    def step(self, tokens: Tensor) -> Tensor:
        return self.start(self._table(tokens)[:, None])

    def keep(self, rows: Tensor) -> None:
        self._cache.batch_select_indices(rows)


def make_engine(llm: Any, engine: str, dtype: torch.dtype | None = None) -> Engine:
    """The engine of that name for an LLM whose LoRA is merged.

    Args:
        llm: The causal LM.
        engine: `"transformers"`; `"fast"`, which packs a copy of the weights; or `"auto"`: fast on
            a CPU where the LLM is of a kind that can be packed, else transformers.
        dtype: Compute type of the fast engine. Default: `fast_dtype()`.

    Raises:
        ValueError: An unknown name, or `"fast"` for an LLM that cannot be packed.
    """
    errors.one_of("engine", engine, ENGINES)
    if engine == "transformers":
        return TransformersEngine(llm)
    reason = why_not_packed(llm)
    if reason is None:
        return PackedLlm(llm, dtype or fast_dtype())
    if engine == "fast":
        raise errors.InvalidInput(
            f"`engine` = 'fast' cannot run this LLM: {reason}. Take 'transformers', or 'auto'."
        )
    return TransformersEngine(llm)


def check_engine(engine: str) -> None:
    """Raise `ValueError` unless `engine` is one of `ENGINES`, or a server's `vllm:URL`."""
    if not engine.startswith(("vllm:http://", "vllm:https://")):
        errors.one_of("engine", engine, ENGINES, "A server is given as 'vllm:http://host:8000'.")


def fast_dtype() -> torch.dtype:
    """bf16 where the CPU multiplies it faster than float32, else float32."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)()
    return torch.bfloat16 if supported else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, `bfloat16`, ..."""
    return str(dtype).removeprefix("torch.")
