from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_llm
from torch import Tensor

from mixup_hf.data.sources import resolve
from mixup_hf.inverter.quantization import (
    _NF4_CODE,
    NF4_BLOCK_SIZE,
    bf16_is_fast,
    fast_autocast,
    nf4_grid,
    round_to_nf4,
    warn_of_slow_bf16,
)

TYPES = (torch.float32, torch.bfloat16, torch.float16)
CODE = torch.tensor(_NF4_CODE)


def bitsandbytes_grid(weight: Tensor) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight, blocksize=NF4_BLOCK_SIZE, quant_type="nf4")
    # The shape (1, 2) comes back as (2, 1): bitsandbytes takes one packed byte for a transpose.
    return dequantize_4bit(packed, state).to(weight.dtype).view(weight.shape)


def assert_same_bits(weight: Tensor) -> None:
    found, expected = nf4_grid(weight), bitsandbytes_grid(weight)
    assert found.dtype == weight.dtype
    if weight.dtype == torch.bfloat16:
        flushed = (found.abs() < torch.finfo(weight.dtype).tiny) & (expected == 0)
        found = found.masked_fill(flushed, 0.0)
    kind = torch.int32 if weight.dtype == torch.float32 else torch.int16
    # Zero is zero, whatever its sign.
    assert torch.equal((found + 0.0).view(kind), (expected + 0.0).view(kind))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "shape", [(64, 64), (3, 100), (7, 30), (1, 65), (5, 13), (2, 31), (1, 66), (1, 2)]
)
def test_random_weights_are_rounded_as_bitsandbytes_rounds_them(
    dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(shape, generator=generator) * 10.0 ** (seed % 7 - 4)
        assert_same_bits(weight.to(dtype))


def ties() -> Tensor:
    """Exactly on, just above and just below every boundary between two values."""
    middle = (CODE[1:] + CODE[:-1]) / 2
    near = [torch.nextafter(middle, torch.full_like(middle, to)) for to in (-2.0, 2.0)]
    values = torch.cat([middle, *near, CODE, torch.tensor([1.0, -1.0, 0.0])])
    return values.view(1, -1) if len(values) % 2 == 0 else values[:-1].view(1, -1)


ADVERSARIAL = {
    "zeros": torch.zeros(4, 64),
    "a block of zeros": torch.cat([torch.zeros(1, 64), torch.ones(1, 64)]),
    "a short block of zeros": torch.zeros(1, 66),
    "ties": ties(),
    "scaled ties": ties() * 0.0371,
    "one outlier": torch.cat([torch.full((1, 63), 1e-6), torch.ones(1, 1)], 1),
    "tiny": torch.linspace(-1e-35, 1e-35, 64)[None],
    "near the smallest normal number": torch.linspace(-9e-38, 9e-38, 64)[None],
    "below it": torch.linspace(-1e-38, 1e-38, 64)[None],
    "far below it": torch.linspace(-1e-40, 1e-40, 64)[None],
    "a short block below it": torch.tensor([[1e-38, -4e-39]]),
    "two values": torch.tensor([[0.3, -0.1]]),
    "huge": torch.linspace(-3e38, 3e38, 64)[None],
    "negative zero": torch.full((1, 64), -0.0),
    "equal": torch.full((2, 64), -0.3),
}


@pytest.mark.parametrize("dtype", TYPES[:2])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_weights_are_rounded_as_bitsandbytes_rounds_them(
    name: str, dtype: torch.dtype
) -> None:
    assert_same_bits(ADVERSARIAL[name].to(dtype))


def test_linear_layers_are_rounded_and_embeddings_and_head_are_not() -> None:
    llm, original = make_llm(), make_llm()
    round_to_nf4(llm)
    rounded = {
        name
        for (name, value), other in zip(llm.named_parameters(), original.parameters(), strict=True)
        if not torch.equal(value, other)
    }
    assert len(rounded) == 14
    assert all("_proj.weight" in name for name in rounded)


@pytest.mark.slow
def test_the_embedded_llm_is_rounded_as_bitsandbytes_rounds_it() -> None:
    weights = load_file(resolve("smollm2-135m-instruct").path / "model.safetensors")
    layers = [value for name, value in weights.items() if "_proj" in name]
    assert len(layers) == 210
    for weight in layers:
        assert_same_bits(weight)


def test_a_load_on_the_cpu_imports_no_bitsandbytes_and_prints_no_warning(
    saved_aligner: Callable[..., Path],
) -> None:
    folder = saved_aligner(lora=True, base_grid="nf4")
    code = (
        "import sys; from mixup_hf import Inverter\n"
        f"inverter = Inverter.from_pretrained({str(folder)!r}, device='cpu')\n"
        "inverter.invert(inverter.encode(['the bank']), max_new_tokens=4)\n"
        "print('bitsandbytes' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert [line for line in lines if "Loading weights" not in line] == []


@pytest.fixture(params=[True, False], ids=["AVX512_BF16", "AVX2"])
def has_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A CPU with instructions for bf16, or without."""
    has = bool(request.param)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return has


def test_texts_are_read_in_bf16_where_the_cpu_has_instructions_for_it(has_bf16: bool) -> None:
    device = torch.device("cpu")
    assert bf16_is_fast(device) is has_bf16
    with fast_autocast(device):
        assert torch.is_autocast_enabled("cpu") is has_bf16


def test_asking_for_bf16_on_a_cpu_that_is_slow_in_it_is_answered(
    has_bf16: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_slow_bf16("training.bf16", torch.device("cpu"))
    assert ("Set `training.bf16` to false" in caplog.text) is not has_bf16
