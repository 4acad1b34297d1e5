"""The model that a run leaves behind: its weights, averaged over the last part of the steps.

With ten rows per class a batch says little, and the weights after the last step are those after a
few noisy ones. Their mean over the run's last part (Izmailov et al., arXiv 1803.05407) costs one
addition a step, and makes the model better calibrated; on accuracy it had no measurable effect here
(recipes/benchmarks/RESULTS.md).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mixup_hf import errors, runtime
from mixup_hf.training.checkpointing import checkpoint_folder

_FILE = "average.safetensors"
_COUNT = "steps"  # in the file's metadata


class WeightAverage(TrainerCallback):
    """Puts the mean of the last steps' weights into the model when training ends.

    Only weights that are trained are averaged, in float32. Until the end the model is as the
    optimizer left it, so neither evaluation during training nor the model in a checkpoint is the
    mean; `trainer.save_model()` after training saves it. Checkpoints hold the mean so far beside
    the model, so a resumed run ends where one without a break does.

    Args:
        share: Of the run's steps, the last ones that are averaged; 1 averages all.
        optional: The user has not asked for it, so it is left out where it cannot be had: with
            `load_best_model_at_end` and with weights in shards.

    Attributes:
        count: Steps averaged so far.
    """

    def __init__(self, share: float, *, optional: bool = False) -> None:
        self.share, self.optional = share, optional
        self.count = 0
        self._first = 0
        self._mean: dict[str, Tensor] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin with nothing, or with what the checkpoint holds.

        Raises:
            InvalidInput: The user asked for it, and it cannot be had; or its file is damaged.
        """
        self.count, self._mean = 0, None
        reason = _why_not(args)
        if reason and not self.optional:
            raise errors.bad("weight_average", f"be 0 {reason}", self.share)
        if reason:
            runtime.log(f"the weights are not averaged, {reason}")
            return
        self._mean = {}
        self._first = int(state.max_steps * (1 - self.share)) + 1
        if state.global_step >= self._first:
            self._load(checkpoint_folder(args, state) / _FILE, state, kwargs["model"])

    @torch.no_grad()
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the weights after this step into the mean."""
        if self._mean is None or state.global_step < self._first:
            return
        self.count += 1
        for name, weight in _trained(kwargs["model"]).items():
            now = weight.detach().float()
            if self.count == 1:
                self._mean[name] = now.clone()
            elif name in self._mean:  # weights that are unfrozen later stay those of the last step
                self._mean[name].lerp_(now, 1 / self.count)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the mean so far into the checkpoint."""
        if not self.count or self._mean is None or not runtime.is_main_process():
            return
        file = checkpoint_folder(args, state) / _FILE
        if not file.parent.parent.is_dir():
            return  # see `checkpointing.write_checkpoint`
        file.parent.mkdir(exist_ok=True)
        partial = file.with_name(f".{_FILE}.partial")  # a kill leaves no half of it
        means = {name: each.contiguous() for name, each in self._mean.items()}
        save_file(means, partial, {_COUNT: str(self.count)})
        os.replace(partial, file)

    @torch.no_grad()
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the mean into the model."""
        mean, self._mean = self._mean, None
        if not self.count or mean is None:
            return
        weights = dict(kwargs["model"].named_parameters())
        for name, each in mean.items():
            weights[name].copy_(each)
        runtime.log(
            f"the model's weights are the mean over the last {self.count:,} of "
            f"{state.global_step:,} steps (`weight_average: 0` leaves those of the last step)"
        )

    def _load(self, file: Path, state: TrainerState, model: nn.Module) -> None:
        if not file.is_file():  # a checkpoint from elsewhere: callbacks are not told its folder
            runtime.warn(
                f"Resumed at step {state.global_step:,}, but {file} is not there: the mean of the "
                "weights begins anew at this step."
            )
            return
        try:
            with safe_open(file, framework="pt") as content:
                count = int(content.metadata()[_COUNT])
                mean = {
                    name: content.get_tensor(name).to(weight.device)
                    for name, weight in _trained(model).items()
                }
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise errors.InvalidInput(
                f"{file} must hold the mean of the weights so far, but cannot be read ({error}). "
                "Resume from another checkpoint, or start again."
            ) from error
        if count != state.global_step - self._first + 1:
            runtime.warn(
                f"The mean in {file} is over the last {count:,} steps, as the run was planned when "
                f"it was saved. With {state.max_steps:,} steps in all it begins anew at this one."
            )
            return
        self.count, self._mean = count, mean


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name: each
        for name, each in model.named_parameters()
        if each.requires_grad and each.is_floating_point()
    }


def _why_not(args: TrainingArguments) -> str:
    """Where no mean can be had; empty where one can."""
    if args.load_best_model_at_end:
        return "with `load_best_model_at_end`, which chooses the weights of one step"
    return "where weights are in shards" if runtime.is_sharded() else ""
