"""A Llama-like LLM packed for decoding many short sentences on a CPU.

Compared with the generic loop: weights are stored in the layout the CPU multiplies fastest, in bf16
where supported; query, key and value are one product; the gate's activation, its product with the
other branch and the residual sums are fused into the products; the cache of keys and values is
allocated once; grouped queries attend without copies of their keys.
"""

from __future__ import annotations

import math
import weakref
from contextlib import suppress
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixup_hf.inverter.engines._packed_layers import ROWS, Layer, Norm, Product
from mixup_hf.inverter.engines.base import dtype_name

# Largest batch: near the end of a batch few rows are unfinished, which costs less per row the
# larger the batch was; beyond this there is no more gain, and every row needs its cache.
_MOST_ROWS = 256
_STEP = 8
# Prompt positions processed at once: activations then stay in the CPU's cache, and in memory the
# process already has.
_POSITIONS = 512
# Model types whose layers are exactly what `Layer` computes.
_MODEL_TYPES = ("llama", "mistral", "qwen2")
_FIXED_ROPE = ("default", "linear", "llama3")


def why_not_packed(llm: Any) -> str | None:
    """Why this LLM cannot be packed; None if it can."""
    config = llm.config
    if config.model_type not in _MODEL_TYPES:
        return f"its type is {config.model_type!r}, not one of {', '.join(_MODEL_TYPES)}"
    device = llm.get_input_embeddings().weight.device.type
    if device != "cpu":
        return f"it is on {device!r}, not on a CPU"
    if any(hasattr(each, "lora_A") for each in llm.modules()):
        return "its LoRA is not merged"
    if any(isinstance(each, nn.Linear) and type(each) is not nn.Linear for each in llm.modules()):
        return "its weights are quantized"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act!r}, not 'silu'"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()) or (
        config.model_type == "mistral" and config.sliding_window is not None
    ):
        return "it attends to a sliding window"
    if llm.model.rotary_emb.rope_type not in _FIXED_ROPE:
        return f"its positions are of type {llm.model.rotary_emb.rope_type!r}"
    return None


class PackedLlm:
    """A packed copy of an LLM's weights; an `Engine`.

    Args:
        llm: A causal LM for which `why_not_packed` is None. It is copied, not changed.
        dtype: Type of weights, activations and cache.
    """

    def __init__(self, llm: Any, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.rotary = llm.model.rotary_emb
        self.table = llm.get_input_embeddings().weight
        self.norm = Norm(llm.model.norm, dtype)
        self.head = Product(llm.lm_head, dtype=dtype)
        self.layers = [Layer(layer, dtype) for layer in llm.model.layers]
        self._rooms: list[Tensor] = []

    @property
    def name(self) -> str:
        """`fast:DTYPE`."""
        return f"fast:{dtype_name(self.dtype)}"

    def parts(self, count: int) -> int:
        """Two if each then has enough rows for one core; more if a part would be too large."""
        return max(-(-count // _MOST_ROWS), min(2, -(-count // ROWS)))

    def size_for(self, alive: int, size: int) -> int:
        """The unfinished rows rounded up to a multiple of eight, which keeps the shapes few."""
        return min(size, -(-alive // _STEP) * _STEP)

    def decoding(self, num_rows: int, length: int) -> _PackedDecoding:
        """Begin a batch: its whole cache of keys and values is allocated at once.

        The memory is kept when the batch has ended, for the next one.
        """
        first = self.layers[0]
        shape = (len(self.layers), num_rows, first.kv_heads, length, first.head_dim)
        room = self._room(2 * math.prod(shape))
        decoding = _PackedDecoding(self, *room[: 2 * math.prod(shape)].view(2, *shape))
        weakref.finalize(decoding, self._rooms.append, room).atexit = False
        return decoding

    def _room(self, numbers: int) -> Tensor:
        """Memory of a finished batch if there is any large enough: allocating is slow."""
        with suppress(IndexError):
            while (room := self._rooms.pop()).numel() < numbers:
                pass
            return room
        return torch.empty(numbers, dtype=self.dtype)


class _PackedDecoding:
    """A batch with its keys and values, each (layers, B, kv heads, length, head_dim)."""

    def __init__(self, llm: PackedLlm, keys: Tensor, values: Tensor) -> None:
        self._llm = llm
        self._position = 0
        # Keys are stored transposed: both products then read memory in order.
        self._keys, self._values = keys.view(*keys.shape[:3], *keys.shape[:2:-1]), values
        length = values.shape[3]
        positions = torch.arange(length)[None]
        cos, sin = llm.rotary(torch.empty(0, dtype=torch.float32), positions)
        self._cos, self._sin = cos[0].to(llm.dtype), sin[0].to(llm.dtype)  # (length, head_dim)

    def start(self, prompts: Tensor) -> Tensor:
        parts = prompts.to(self._llm.dtype).split(max(1, _POSITIONS // prompts.shape[1]))
        ends = accumulate(map(len, parts))
        read = [self._read(part, end - len(part)) for part, end in zip(parts, ends, strict=True)]
        return self._next(torch.cat(read), prompts.shape[1])

    def step(self, tokens: Tensor) -> Tensor:
        inputs = F.embedding(tokens, self._llm.table)[:, None].to(self._llm.dtype)
        return self._next(self._read(inputs, 0), 1)

    def keep(self, rows: Tensor) -> None:
        count, used = len(rows), self._position
        # Only rows that move are copied, in place: allocating costs more than copying.
        for to, at in enumerate(rows.tolist()):
            if to != at:
                self._keys[:, to, ..., :used] = self._keys[:, at, ..., :used]
                self._values[:, to, :, :used] = self._values[:, at, :, :used]
        self._keys, self._values = self._keys[:, :count], self._values[:, :count]

    def _next(self, hidden: Tensor, new: int) -> Tensor:
        """Logits (B, V) of the next tokens, from (B, H) after `new` positions."""
        self._position += new
        return self._llm.head(self._llm.norm(hidden))

    def _read(self, inputs: Tensor, first: int) -> Tensor:
        """Run all layers on new positions (R, P, H) of rows from `first`; (R, H) of the last."""
        num_rows, new, width = inputs.shape
        rows = slice(first, first + num_rows)
        start, end = self._position, self._position + new
        angles = self._cos[start:end], self._sin[start:end]
        hidden = inputs.reshape(num_rows * new, width)
        for number, layer in enumerate(self._llm.layers):
            memory = self._keys[number, rows], self._values[number, rows]
            last = number + 1 == len(self._llm.layers)  # only the last position is needed after it
            hidden = layer(hidden, num_rows, angles, memory, start, last=last)
        return hidden


def fast_dtype() -> torch.dtype:
    """bf16 where the CPU multiplies it faster than float32, else float32."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)()
    return torch.bfloat16 if supported else torch.float32
