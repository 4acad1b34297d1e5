"""The layers of a packed LLM: fused products, norms and attention."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_Two = tuple[Tensor, Tensor]
# Rows per product that weights are laid out for; other numbers run too, a little slower.
ROWS = 128


class Layer:
    """One decoder layer on rows (B * P, H)."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim = attention.head_dim
        self.heads = attention.q_proj.out_features // self.head_dim
        self.kv_heads = attention.k_proj.out_features // self.head_dim
        self.scale = attention.scaling
        self.before_attention = Norm(layer.input_layernorm, dtype)
        self.before_mlp = Norm(layer.post_attention_layernorm, dtype)
        self.qkv = Product(attention.q_proj, attention.k_proj, attention.v_proj, dtype=dtype)
        self.output = Product(attention.o_proj, dtype=dtype)
        self.gate = Product(mlp.gate_proj, dtype=dtype)
        self.up = Product(mlp.up_proj, dtype=dtype)
        self.down = Product(mlp.down_proj, dtype=dtype)

    def __call__(
        self, hidden: Tensor, num_rows: int, angles: _Two, memory: _Two, at: int, *, last: bool
    ) -> Tensor:
        attended = self.attend(
            self.before_attention(hidden), num_rows, angles, memory, at, last=last
        )
        if last:
            hidden = hidden.view(num_rows, -1, hidden.shape[-1])[:, -1].contiguous()
        hidden = self.output.plus(attended, hidden)
        inputs = self.before_mlp(hidden)
        return self.down.plus(self.up.times(inputs, self.gate.silu(inputs)), hidden)

    def attend(
        self, inputs: Tensor, num_rows: int, angles: _Two, memory: _Two, at: int, *, last: bool
    ) -> Tensor:
        """Attention of new positions to all earlier ones and to themselves.

        Args:
            inputs: New positions (B * P, H).
            num_rows: B.
            angles: Cosines and sines (P, head_dim) of their rotary positions.
            memory: Keys (B, kv heads, head_dim, T) and values (B, kv heads, T, head_dim);
                those of the new positions are written into them.
            at: Index in T of the first new position.
            last: Whether only the last position is returned; the others are only attended to.
        """
        total = self.heads + 2 * self.kv_heads
        mixed = self.qkv(inputs).view(num_rows, -1, total, self.head_dim)
        new = mixed.shape[1]
        end = at + new
        turned = _rotate(mixed[:, :, : self.heads + self.kv_heads], *angles)
        keys, values = memory
        keys[..., at:end] = turned[:, :, self.heads :].permute(0, 2, 3, 1)
        values[:, :, at:end] = mixed[:, :, self.heads + self.kv_heads :].transpose(1, 2)
        # The queries that share a key are stacked as rows of one product. For problems this small
        # two plain products are three times as fast as the fused attention kernel.
        query = turned[:, -1:, : self.heads] if last else turned[:, :, : self.heads]
        asked = query.shape[1]
        grouped = (num_rows, asked, self.kv_heads, -1, self.head_dim)
        query = query.reshape(grouped).transpose(1, 2) * self.scale
        scores = query.reshape(num_rows, self.kv_heads, -1, self.head_dim) @ keys[..., :end]
        weights = scores.float()
        if asked > 1:  # a position attends to itself and those before it
            later = torch.ones(asked, end, dtype=torch.bool).triu(at + 1)
            weights.view(*weights.shape[:2], asked, -1, end).masked_fill_(
                later[:, None], -torch.inf
            )
        attended = weights.softmax(-1).to(scores.dtype) @ values[:, :, :end]
        attended = attended.view(num_rows, self.kv_heads, asked, -1, self.head_dim).transpose(1, 2)
        found: Tensor = attended.reshape(num_rows * asked, -1)
        return found


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions for (B, P, heads, head_dim)."""
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return heads * cos[:, None] + turned * sin[:, None]


class Norm:
    """RMSNorm with its weight in the compute type."""

    def __init__(self, norm: Any, dtype: torch.dtype) -> None:
        self.weight = norm.weight.to(dtype)
        self.epsilon = norm.variance_epsilon

    def __call__(self, inputs: Tensor) -> Tensor:
        return F.rms_norm(inputs, (inputs.shape[-1],), self.weight, self.epsilon)


class Product:
    """Products with the stacked weights of linear layers, in oneDNN's layout if it is supported."""

    def __init__(self, *layers: nn.Linear, dtype: torch.dtype) -> None:
        weight = torch.cat([layer.weight for layer in layers]).to(dtype).contiguous()
        given: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = torch.cat(given).to(dtype) if given else None
        self.packed = packing_works(dtype) and weight.device.type == "cpu"
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
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    return packed


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the packed products, and they are correct on this CPU.

    They are the operators `torch.compile` calls and have no public name, so they are checked.
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
