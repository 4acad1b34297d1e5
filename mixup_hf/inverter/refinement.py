"""Refinement: a short alignment run in a plain loop, inside another training run.

`L_GEN` is the objective of stage 1 (arXiv 2601.21543): the loss of decoding a sentence from its
embedding. The longer stages, which use their own Trainer, are in `align`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mixup_hf import runtime
from mixup_hf.inverter.batches import IGNORED, TokenBudgetBatches
from mixup_hf.inverter.objective import AlignmentModel


def set_trainable(model: AlignmentModel, *, projector: bool, lora: bool) -> None:
    """Make the projector, the LoRA, or both trainable, and freeze everything else.

    All prompt parameters count as projector, except the lexicon, which has its own stage.
    """
    for name, parameter in model.named_parameters():
        is_lora = "lora_" in name
        is_projector = name.startswith("prompt.") and ".lexicon." not in name
        parameter.requires_grad_((is_lora and lora) or (is_projector and projector))


def refresh(
    model: AlignmentModel,
    batches: TokenBudgetBatches,
    *,
    steps: int,
    learning_rate: float = 3e-4,
    seed: int = 0,
) -> tuple[float, float]:
    """Stage 3: realign the projector with an encoder that has changed during training.

    Frozen: everything except the prompt parameters (the projector, and the rank and confidence
    vectors of the hints). Loss: `L_GEN`. Data: the task's texts, embedded by the current encoder.
    This is a plain loop because it runs inside another Trainer's loop; every process performs the
    same steps.

    Args:
        model: The inverter's prompt and LLM.
        batches: The texts.
        steps: Number of optimizer steps.
        learning_rate: Constant learning rate.
        seed: Determines the batch used at each step.

    Returns:
        `L_GEN` over all batches before and after, in nats per token. The difference shows how stale
        the aligner was.
    """
    set_trainable(model, projector=True, lora=False)
    groups = [{"params": trained_parameters(model), "lr": learning_rate}]
    rng = runtime.counter_rng(seed)
    order = [int(rng.integers(len(batches))) for _ in range(steps)]
    before = generation_loss(model, batches)
    descend(model, batches, order, AdamW(groups, weight_decay=0.0))
    model.requires_grad_(False)
    return before, generation_loss(model, batches)


def trained_parameters(model: AlignmentModel) -> list[torch.nn.Parameter]:
    """The parameters that `set_trainable` left trainable."""
    return [value for value in model.parameters() if value.requires_grad]


def parameter_groups(
    model: AlignmentModel, projector_lr: float, lora_lr: float
) -> list[dict[str, Any]]:
    """What `set_trainable` left trainable, for an optimizer: the projector's and the LoRA's."""
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    lora = [value for name, value in trained if "lora_" in name]
    projector = [value for name, value in trained if "lora_" not in name]
    groups = ((projector, projector_lr), (lora, lora_lr))
    return [{"params": values, "lr": rate} for values, rate in groups if values]


def rate_factor(step: int, progress: float, *, warmup_steps: int, decay_share: float) -> float:
    """Learning rate relative to its peak: warm-up, plateau, linear decay to zero.

    Args:
        step: Steps taken.
        progress: Share of the training that is done, from 0 to 1.
        warmup_steps: Steps of the warm-up.
        decay_share: Share of the training, at its end, in which the rate falls.
    """
    warm = min(1.0, (step + 1) / (warmup_steps + 1))
    if decay_share == 0:
        return warm
    return warm * min(1.0, max(0.0, 1.0 - progress) / decay_share)


def descend(
    model: AlignmentModel,
    batches: TokenBudgetBatches,
    order: Sequence[int],
    optimizer: Optimizer,
    rate: Callable[[int], float] = lambda step: 1.0,
    on_step: Callable[[], object] = runtime.step_done,
) -> None:
    """Minimize `L_GEN`, one batch a step.

    Args:
        model: Whose trainable parameters the optimizer has.
        batches: The texts.
        order: Indices of the batches, one for each step.
        optimizer: Its learning rates are the peaks.
        rate: The learning rate of a step, relative to the peak.
        on_step: Called after each step.
    """
    trained = trained_parameters(model)
    schedule = LambdaLR(optimizer, rate)
    for index in order:
        loss = model(**_to_device(batches[index], model))["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        on_step()


@torch.no_grad()
def generation_loss(model: AlignmentModel, batches: TokenBudgetBatches) -> float:
    """`L_GEN` over all batches, in nats per token, without noise or mixing."""
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for index in range(len(batches)):
        item = _to_device(batches[index], model)
        targets = int((item["labels"] != IGNORED).sum())
        total += float(model(**item)["loss"]) * targets
        count += targets
    model.train(was_training)
    return total / count


def _to_device(item: dict[str, Tensor], model: AlignmentModel) -> dict[str, Tensor]:
    device = model.prompt.projector.gain.device
    return {name: value.to(device) for name, value in item.items()}
