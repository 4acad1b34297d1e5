"""Loading the LLM: 4-bit through bitsandbytes, or plain weights on the same 4-bit grid.

A LoRA is aligned to one set of base weights. The aligners of this library are trained on the nf4
grid, so a plain (`"none"`) load rounds the weights to that grid too: a machine without a fast 4-bit
kernel then decodes the same sentences. bitsandbytes is imported for 4-bit weights only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from mixup_hf import errors, runtime
from mixup_hf.inverter.pretrained import load_model

Quantization = Literal["4bit", "none"]
NF4_BLOCK_SIZE = 64
COMPUTE_DTYPES = {
    name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")
}
_TINY = 1e-38  # keeps a block of zeros from being divided by zero
# Quantiles of the normal distribution, as bitsandbytes has them (float32).
_NF4_CODE = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def load_llm(
    path: str | Path,
    *,
    quantization: Quantization,
    dtype: torch.dtype,
    device: torch.device,
    base_grid: str | None,
) -> Any:
    """Load a frozen causal LM for inversion or alignment.

    Args:
        path: Folder of the base model.
        quantization: `"4bit"` keeps nf4 weights (bitsandbytes) and computes in `dtype`; `"none"`
            keeps weights of type `dtype`.
        dtype: Compute type, and storage type of weights that are not quantized.
        device: Where the model goes.
        base_grid: `"nf4"` if the LoRA belongs to weights rounded to nf4, else None. Only matters
            for `quantization="none"`.
    """
    errors.one_of("quantization", quantization, ("4bit", "none"))
    errors.one_of("base_grid", base_grid, ("nf4", None))
    llm = _load_4bit(path, dtype, device) if quantization == "4bit" else _load_plain(path, dtype)
    if quantization == "none":
        if base_grid == "nf4":
            round_to_nf4(llm)
        llm.to(device)
    return llm.eval().requires_grad_(False)


def default_quantization(device: torch.device) -> Quantization:
    """`"4bit"` on CUDA, where it saves memory; `"none"` elsewhere, where it is only slower."""
    return "4bit" if device.type == "cuda" else "none"


def read_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A compute type by its name, as transformers takes it; None stays None.

    Raises:
        InvalidInput: It is no type that the models compute in.
    """
    found = COMPUTE_DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if dtype is not None and found not in COMPUTE_DTYPES.values():
        names = ", ".join(repr(name) for name in COMPUTE_DTYPES)
        raise errors.bad("dtype", f"be one of {names}, or the type of torch of that name", dtype)
    return found


def default_dtype(device: torch.device) -> torch.dtype:
    """bf16 where it is fast (CUDA, CPUs with AMX tiles), else float32.

    AVX512_BF16 alone is not enough: with it, 64 sentences took 1.6 times as long in bf16.
    """
    if device.type == "cuda":
        with runtime.on_device(device):  # it asks, and may try, the current GPU
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()  # private: may go
    return torch.bfloat16 if has_amx else torch.float32


def bf16_is_fast(device: torch.device) -> bool:
    """Whether batches of texts are read faster in bf16 than in float32.

    Unlike decoding, which reads all weights for a few tokens, batches gain from AVX512_BF16 too. A
    CPU without it computes bf16 products one by one, far slower than those in float32.
    """
    supports = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # private: may go
    return default_dtype(device) == torch.bfloat16 or (device.type == "cpu" and supports())


def warn_of_slow_bf16(name: str, device: torch.device) -> None:
    """Say that the setting `name` asks for bf16 where float32 is far faster."""
    if device.type == "cpu" and not bf16_is_fast(device):
        runtime.warn(
            f"`{name}` is true, but this CPU computes bf16 slowly: without AVX512_BF16 or AMX it "
            f"takes tens of times as long as float32. Set `{name}` to false."
        )


def fast_autocast(device: torch.device) -> torch.autocast:
    """Autocast to bf16 where that is fast, else one that does nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_fast(device))


def round_to_nf4(llm: nn.Module) -> None:
    """Round the linear weights that bitsandbytes would quantize to the nf4 grid, in place.

    Embeddings and the output head are left as they are, as in a 4-bit load.
    """
    for name, module in llm.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith("lm_head"):
            module.weight.data = nf4_grid(module.weight.data)


def nf4_grid(weight: Tensor) -> Tensor:
    """The nearest values on the nf4 grid (arXiv 2305.14314), in the type of `weight`.

    Equal bit for bit to quantizing and dequantizing with bitsandbytes, which divides a shorter last
    block by its largest absolute value, but multiplies whole blocks by the reciprocal. (One
    exception was measured, on a CPU with AVX512_BF16: bf16 results below the smallest normal
    number, 1.2e-38, which bitsandbytes makes zero and this function keeps.)

    Args:
        weight: Any shape; blocks of `NF4_BLOCK_SIZE` values run through it row by row.
    """
    code = torch.tensor(_NF4_CODE, device=weight.device)
    bounds = (code[1:] + code[:-1]) / 2
    flat = weight.float().flatten()
    whole = len(flat) - len(flat) % NF4_BLOCK_SIZE
    blocks, rest = flat[:whole].view(-1, NF4_BLOCK_SIZE), flat[whole:]
    largest = blocks.abs().amax(-1, keepdim=True)
    scaled = blocks * (1.0 / largest.clamp_min(_TINY))
    rounded = (code[torch.bucketize(scaled.clamp(-1, 1), bounds)] * largest).flatten()
    if len(rest):
        last = rest.abs().amax().clamp_min(_TINY)
        last_rounded = code[torch.bucketize((rest / last).clamp(-1, 1), bounds)] * last
        rounded = torch.cat([rounded, last_rounded])
    return rounded.view(weight.shape).to(weight.dtype)


def _load_plain(path: str | Path, dtype: torch.dtype) -> Any:
    # Rounding is done in bf16 whatever the compute type, so that every machine gets the same grid.
    return load_model(AutoModelForCausalLM, path, dtype=torch.bfloat16).to(dtype)


def _load_4bit(path: str | Path, dtype: torch.dtype, device: torch.device) -> Any:
    try:
        from bitsandbytes.nn import Linear4bit  # type: ignore[attr-defined]  # not in __all__
    except ImportError as error:
        raise errors.MissingPackage(
            "4-bit weights need bitsandbytes: `pip install bitsandbytes`, or set "
            "`quantization: none`."
        ) from error
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
    llm = load_model(
        AutoModelForCausalLM,
        path,
        quantization_config=config,
        dtype=dtype,  # of the unquantized weights; activations have the type of the embeddings
        device_map={"": device},
    )
    for module in llm.modules():
        if isinstance(module, Linear4bit):
            # On AVX512_BF16 CPUs bitsandbytes repacks weights in place at the first forward; after
            # that gradients, merging and saving are silently wrong (bitsandbytes 0.50).
            module.support_avx512bf16_for_cpu = False
    return llm
