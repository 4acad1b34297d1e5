"""Alignment throughput, and how it compares with the device's matmul rate."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mixup_hf import runtime
from mixup_hf.inverter.batches import TokenBudgetBatches, WordBatches
from mixup_hf.inverter.objective import AlignmentModel


class Throughput(TrainerCallback):
    """Logs the loss with sentences/s, tokens/s and utilization of the measured GEMM rate.

    Args:
        model: The model being trained.
        batches: Its training data.
    """

    def __init__(self, model: nn.Module, batches: TokenBudgetBatches | WordBatches) -> None:
        self.batches = batches
        self.flops = step_flops(model, batches) if isinstance(model, AlignmentModel) else None
        self.gemm_rate: float | None = None
        self.last: tuple[float, int] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the device's GEMM rate and record the start of the first interval."""
        if self.flops is not None:
            self.gemm_rate = gemm_rate(args.device, torch.bfloat16 if args.bf16 else torch.float32)
            runtime.log(f"matrix multiplication on this device: {self.gemm_rate / 1e9:.0f} GFLOP/s")
        self.last = (time.monotonic(), state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the loss and the throughput over the last interval."""
        logs = kwargs.get("logs") or {}
        if self.last is None or "loss" not in logs:
            return
        now, step = time.monotonic(), state.global_step
        steps = (step - self.last[1]) / max(now - self.last[0], 1e-9)
        self.last = (now, step)
        rate = steps * runtime.world_size()
        share = ""
        if self.flops is not None and self.gemm_rate is not None:
            share = f", {steps * self.flops / self.gemm_rate:.0%} of the GEMM rate"
        runtime.log(
            f"step {step}: loss {float(logs['loss']):.3f} nats/token, "
            f"{rate * self.batches.rows_per_batch:.1f} sentences/s, "
            f"{rate * self.batches.tokens_per_batch:.0f} tokens/s{share}, "
            f"lr {logs['learning_rate']:.2g}"
        )


def step_flops(model: AlignmentModel, batches: TokenBudgetBatches | WordBatches) -> float:
    """Minimum floating-point operations of a training step, on average.

    Counts two operations per layer weight and position in the forward pass, and two more for the
    gradient with respect to the input; likewise for the output head at target positions. LoRA
    matmuls, attention scores and all element-wise operations count as overhead.
    """
    decoder, head = model.base.get_decoder(), model.base.get_output_embeddings()
    weights = sum(
        module.in_features * module.out_features
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and "lora_" not in name
    )
    targets = batches.tokens_per_batch
    positions = targets + batches.rows_per_batch * (model.prompt.length - 1)
    operations: float = 4 * (weights * positions + head.weight.numel() * targets)
    return operations


def gemm_rate(device: torch.device, dtype: torch.dtype, largest: int = 2048) -> float:
    """Floating-point operations per second of a large matrix product, best of six.

    On a slow device the product is smaller, so that measuring it takes a second or two.
    """
    size = min(256, largest)
    while size < largest and _product_seconds(device, dtype, size) < 0.05:
        size *= 2
    best = min(_product_seconds(device, dtype, size) for _ in range(6))
    return 2.0 * size**3 / best


def _product_seconds(device: torch.device, dtype: torch.dtype, size: int) -> float:
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    _synchronize(device)
    start = time.perf_counter()
    left @ right
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
