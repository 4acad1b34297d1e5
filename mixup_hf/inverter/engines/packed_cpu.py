"""A Llama-like LLM packed for decoding many short sentences on a CPU.

Against the generic loop: weights are brought once into the layout in which the CPU multiplies them
best, and in bf16 where it can; query, key and value are one product; the gate's activation, its
product with the other branch and the residual sums happen inside the products; keys and values have
their place from the start; grouped queries attend without copies of their keys.
"""

from __future__ import annotations

import math
import weakref
from contextlib import suppress
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_Two = tuple[Tensor, Tensor]

# Rows per product that weights are laid out for; others run too, a little slower.
_ROWS = 128
# Rows of a batch beyond which it gains nothing more: the last sentences of a batch go on almost
# alone, so the more it begins with, the less they cost; keys and values are kept for each.
_MOST_ROWS = 256
_STEP = 8
# Positions of prompts read at once: what is between two products then stays near the core, and in
# memory that the process has already.
_POSITIONS = 512
# Model types whose layers are exactly those that `_Layer` computes.
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
        return "its weights are quantised"
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
        self.norm = _Norm(llm.model.norm, dtype)
        self.head = _Product(llm.lm_head, dtype=dtype)
        self.layers = [_Layer(layer, dtype) for layer in llm.model.layers]
        self._rooms: list[Tensor] = []

    @property
    def name(self) -> str:
        """`fast:DTYPE`."""
        return f"fast:{str(self.dtype).removeprefix('torch.')}"

    def parts(self, count: int) -> int:
        """Two where both have enough rows for a core, and more where they would have too many."""
        return max(-(-count // _MOST_ROWS), min(2, -(-count // _ROWS)))

    def size_for(self, alive: int, size: int) -> int:
        """Those alive, in eights: few rows move, and there are few sizes to make products for."""
        return min(size, -(-alive // _STEP) * _STEP)

    def decoding(self, num_rows: int, length: int) -> _PackedDecoding:
        """Begin a batch: room for keys and values of all its positions is taken at once.

        It stays with the engine when the batch has ended, for the next one.
        """
        first = self.layers[0]
        shape = (len(self.layers), num_rows, first.kv_heads, length, first.head_dim)
        room = self._room(2 * math.prod(shape))
        decoding = _PackedDecoding(self, *room[: 2 * math.prod(shape)].view(2, *shape))
        weakref.finalize(decoding, self._rooms.append, room).atexit = False
        return decoding

    def _room(self, numbers: int) -> Tensor:
        """Memory of a batch that has ended, or new, which takes longer to get than to fill."""
        with suppress(IndexError):
            while (room := self._rooms.pop()).numel() < numbers:
                pass
            return room
        return torch.empty(numbers, dtype=self.dtype)


class _PackedDecoding:
    """A batch, with room for its keys and values: each (layers, B, kv heads, length, head_dim)."""

    def __init__(self, llm: PackedLlm, keys: Tensor, values: Tensor) -> None:
        self._llm = llm
        self._position = 0
        # Keys lie the other way round than values: both are then read in the order of the products.
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
        # Only what moves is copied, within the room there is: new memory costs more than copying.
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
        """Run all layers over new positions (R, P, H) of rows from `first` on; the last of each."""
        num_rows, new, width = inputs.shape
        rows = slice(first, first + num_rows)
        start, end = self._position, self._position + new
        angles = self._cos[start:end], self._sin[start:end]
        hidden = inputs.reshape(num_rows * new, width)
        for number, layer in enumerate(self._llm.layers):
            memory = self._keys[number, rows], self._values[number, rows]
            last = number + 1 == len(self._llm.layers)  # after it only one position is looked at
            hidden = layer(hidden, num_rows, angles, memory, start, last=last)
        return hidden


class _Layer:
    """One decoder layer on rows (B * P, H)."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim = attention.head_dim
        self.heads = attention.q_proj.out_features // self.head_dim
        self.kv_heads = attention.k_proj.out_features // self.head_dim
        self.scale = attention.scaling
        self.before_attention = _Norm(layer.input_layernorm, dtype)
        self.before_mlp = _Norm(layer.post_attention_layernorm, dtype)
        self.qkv = _Product(attention.q_proj, attention.k_proj, attention.v_proj, dtype=dtype)
        self.output = _Product(attention.o_proj, dtype=dtype)
        self.gate = _Product(mlp.gate_proj, dtype=dtype)
        self.up = _Product(mlp.up_proj, dtype=dtype)
        self.down = _Product(mlp.down_proj, dtype=dtype)

    def __call__(
        self, hidden: Tensor, num_rows: int, angles: _Two, memory: _Two, at: int, *, last: bool
    ) -> Tensor:
        heard = self.attend(self.before_attention(hidden), num_rows, angles, memory, at, last=last)
        if last:
            hidden = hidden.view(num_rows, -1, hidden.shape[-1])[:, -1].contiguous()
        hidden = self.output.plus(heard, hidden)
        inputs = self.before_mlp(hidden)
        return self.down.plus(self.up.times(inputs, self.gate.silu(inputs)), hidden)

    def attend(
        self, inputs: Tensor, num_rows: int, angles: _Two, memory: _Two, at: int, *, last: bool
    ) -> Tensor:
        """Attention of new positions to all so far, and to themselves.

        Args:
            inputs: New positions (B * P, H).
            num_rows: B.
            angles: Cosines and sines (P, head_dim) of their rotary positions.
            memory: Keys (B, kv heads, head_dim, T) and values (B, kv heads, T, head_dim), which get
                the new ones.
            at: Where in T.
            last: Whether only the last position is asked for; the others are only heard.
        """
        total = self.heads + 2 * self.kv_heads
        mixed = self.qkv(inputs).view(num_rows, -1, total, self.head_dim)
        new = mixed.shape[1]
        end = at + new
        turned = _rotate(mixed[:, :, : self.heads + self.kv_heads], *angles)
        keys, values = memory
        keys[..., at:end] = turned[:, :, self.heads :].permute(0, 2, 3, 1)
        values[:, :, at:end] = mixed[:, :, self.heads + self.kv_heads :].transpose(1, 2)
        # The queries that share a key stand one below the other, as rows of one product. For
        # problems this small two plain products are three times as fast as the fused kernel.
        query = turned[:, -1:, : self.heads] if last else turned[:, :, : self.heads]
        asked = query.shape[1]
        grouped = (num_rows, asked, self.kv_heads, -1, self.head_dim)
        query = query.reshape(grouped).transpose(1, 2) * self.scale
        scores = query.reshape(num_rows, self.kv_heads, -1, self.head_dim) @ keys[..., :end]
        weights = scores.float()
        if asked > 1:  # a position hears itself and those before it
            later = torch.ones(asked, end, dtype=torch.bool).triu(at + 1)
            weights.view(*weights.shape[:2], asked, -1, end).masked_fill_(
                later[:, None], -torch.inf
            )
        heard = weights.softmax(-1).to(scores.dtype) @ values[:, :, :end]
        heard = heard.view(num_rows, self.kv_heads, asked, -1, self.head_dim).transpose(1, 2)
        found: Tensor = heard.reshape(num_rows * asked, -1)
        return found


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions for (B, P, heads, head_dim)."""
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return heads * cos[:, None] + turned * sin[:, None]


class _Norm:
    """RMSNorm with its weight in the compute type."""

    def __init__(self, norm: Any, dtype: torch.dtype) -> None:
        self.weight = norm.weight.to(dtype)
        self.epsilon = norm.variance_epsilon

    def __call__(self, inputs: Tensor) -> Tensor:
        return F.rms_norm(inputs, (inputs.shape[-1],), self.weight, self.epsilon)


class _Product:
    """Products with the stacked weights of linear layers, in the CPU's own layout if it has one."""

    def __init__(self, *layers: nn.Linear, dtype: torch.dtype) -> None:
        weight = torch.cat([layer.weight for layer in layers]).to(dtype).contiguous()
        given: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = torch.cat(given).to(dtype) if given else None
        self.packed = _packing_works(dtype) and weight.device.type == "cpu"
        self.weight = _pack(weight) if self.packed else weight

    def __call__(self, inputs: Tensor) -> Tensor:
        return self._unary(inputs, "none")

    def silu(self, inputs: Tensor) -> Tensor:
        """`silu(self(inputs))`."""
        return self._unary(inputs, "swish") if self.packed else F.silu(self._unary(inputs, "none"))

    def plus(self, inputs: Tensor, other: Tensor) -> Tensor:
        """`self(inputs) + other`."""
        return self._binary(inputs, other, "add") if self.packed else self(inputs) + other

    def times(self, inputs: Tensor, other: Tensor) -> Tensor:
        """`self(inputs) * other`."""
        return self._binary(inputs, other, "mul") if self.packed else self(inputs) * other

    def _unary(self, inputs: Tensor, after: str) -> Tensor:
        if not self.packed:
            return F.linear(inputs, self.weight, self.bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self.weight, self.bias, after, [], ""
        )
        return product

    def _binary(self, inputs: Tensor, other: Tensor, after: str) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            inputs, other, self.weight, self.bias, after
        )
        return product


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
    return packed


@cache
def _packing_works(dtype: torch.dtype) -> bool:
    """Whether this build of torch and this CPU have the packed products, and they are right.

    They are what `torch.compile` calls, and have no public name: nothing is taken for granted.
    """
    generator = torch.Generator().manual_seed(0)
    weight, inputs, other = (
        torch.randn(shape, generator=generator).to(dtype) for shape in ((8, 16), (4, 16), (4, 8))
    )
    plain = F.linear(inputs, weight)
    try:
        packed = _pack(weight)
        call = torch.ops.mkldnn._linear_pointwise
        found = [
            call(inputs, packed, None, "none", [], ""),
            call(inputs, packed, None, "swish", [], ""),
            call.binary(inputs, other, packed, None, "add"),
            call.binary(inputs, other, packed, None, "mul"),
        ]
    except (AttributeError, RuntimeError):
        return False
    expected = [plain, F.silu(plain), plain + other, plain * other]
    return all(
        torch.allclose(a.float(), b.float(), rtol=0.05, atol=0.05)
        for a, b in zip(found, expected, strict=True)
    )
