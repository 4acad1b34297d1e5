"""Loading the LLM: 4-bit through bitsandbytes, or plain weights on the same 4-bit grid.

A LoRA is aligned to one set of base weights. Aligners of this library are trained on the nf4 grid,
so a plain (`"none"`) load rounds the weights to that grid too: a machine without a useful 4-bit
kernel then decodes the same sentences, only faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from mixup_hf import errors

Quantization = Literal["4bit", "none"]
NF4_BLOCK_SIZE = 64


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
        dtype: Compute type, and storage type where nothing is quantised.
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
    """`"4bit"` on CUDA, where it saves memory; `"none"` elsewhere, where it only costs time."""
    return "4bit" if device.type == "cuda" else "none"


def default_dtype(device: torch.device) -> torch.dtype:
    """bf16 where it is fast (CUDA, CPUs with AMX tiles), else float32.

    AVX512_BF16 alone does not make it fast: there, 64 sentences took 1.6 times as long in bf16.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()  # private: may go
    return torch.bfloat16 if has_amx else torch.float32


def round_to_nf4(llm: nn.Module) -> None:
    """Round the linear weights that bitsandbytes would quantise to the nf4 grid, in place.

    Embeddings and the output head stay as they are, as they do in a 4-bit load.
    """
    import bitsandbytes.functional as bnb

    for name, module in llm.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith("lm_head"):
            weight = module.weight.data
            packed, state = bnb.quantize_4bit(weight, blocksize=NF4_BLOCK_SIZE, quant_type="nf4")
            module.weight.data = bnb.dequantize_4bit(packed, state).to(weight.dtype)


def _load_plain(path: str | Path, dtype: torch.dtype) -> Any:
    # Rounding happens in bf16 whatever the compute type, so that every machine gets one grid.
    llm: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.bfloat16, use_safetensors=True
    )
    return llm.to(dtype)


def _load_4bit(path: str | Path, dtype: torch.dtype, device: torch.device) -> Any:
    from bitsandbytes.nn import Linear4bit  # type: ignore[attr-defined]  # exported without __all__
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
    llm: Any = AutoModelForCausalLM.from_pretrained(
        path,
        quantization_config=config,
        dtype=dtype,  # of what is not quantised: activations have the type of the embeddings
        device_map={"": device},
        use_safetensors=True,
    )
    for module in llm.modules():
        if isinstance(module, Linear4bit):
            # On AVX512_BF16 CPUs bitsandbytes repacks weights in place at the first forward; after
            # that gradients, merging and saving are silently wrong (bitsandbytes 0.50).
            module.support_avx512bf16_for_cpu = False
    return llm
