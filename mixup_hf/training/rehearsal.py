"""The member `model` of the committee: a copy of the model, trained on the real rows beforehand.

The copy is taken from the model given to the Trainer when training begins, and trained on the real
rows alone for half as many steps as the run has, at most 100, with AdamW and the run's learning
rate. Then it labels generated rows beside the other members; the model itself, its optimizer and
the global generators are as they were. It has seen every real row, so it has no held-out
predictions, and a fixed weight.

It is off by default: it helps where the model learns the task from few rows, and hurts where it
does not, because nothing shows how right it is. Accuracy and negative log-likelihood of the
committee on 250 test rows with 10 rows per class (MiniLM, 60 steps, mean of two seeds):

| members | SST-2 | TREC | BBC headlines |
| --- | --- | --- | --- |
| the copy alone, accuracy | 0.508 | 0.626 | 0.782 |
| encoder, llm | 0.620, 0.67 | 0.678, 0.83 | 0.762, 0.73 |
| encoder, llm, model | 0.540, 0.76 | 0.696, 0.78 | 0.808, 0.64 |

A resumed run starts from a model that has been trained further, and must label as the first one
did: the copy's trained weights are in every checkpoint, hard links of one file.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerState, TrainingArguments

from mixup_hf import errors, runtime
from mixup_hf.data.targets import MULTI_LABEL, REGRESSION, Targets
from mixup_hf.judging.labels import Member
from mixup_hf.judging.labels.members.model import NAME as MEMBER
from mixup_hf.training.checkpointing import RUN_FOLDER, checkpoint_folder, link
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.loss import logits_of, row_losses
from mixup_hf.types import MixedExample

MAX_STEPS = 100
_WARMUP = 0.1  # share of the steps
_FILE = "rehearsed.safetensors"
_ORDER = 12  # what this stream of random numbers is for; part of its key


class Rehearsal:
    """A copy of the model being trained, trained on the real rows alone.

    Args:
        texts: The training texts (N).
        targets: Their labels.
        collator: Makes the model's inputs, as it makes those of mixed rows.
        class_weights: Weights of the classes (C,) in the loss.
        seed: Seed of the order of rows and of dropout.
        on_begin: Called with this object once there is a new copy.
    """

    def __init__(
        self,
        texts: Sequence[str],
        targets: Targets,
        collator: MixupCollator,
        class_weights: Tensor | None = None,
        seed: int = 0,
        on_begin: Callable[[Rehearsal], object] = id,
    ) -> None:
        self._rows = [
            _row(text, label) for text, label in zip(texts, targets.values.tolist(), strict=True)
        ]
        self._problem_type, self._class_weights = targets.problem_type, class_weights
        self._collator, self._seed, self._on_begin = collator, seed, on_begin
        self._model: Any = None
        self._frozen: set[str] = set()
        self._like: Any = None
        self._file = Path()
        self._batch_size, self._autocast = 1, False

    def begin(self, model: Any, dataset: Any, args: TrainingArguments, state: TrainerState) -> None:
        """Make the copy, as `Begins.begin`: train it, or on a resume take it from the checkpoint.

        All processes get the main one's.

        Raises:
            InvalidInput: The model cannot be copied, or the checkpoint has no copy.
        """
        self._batch_size, self._autocast = args.eval_batch_size, bool(args.bf16)
        self._model = _copy_of(model)
        weights = self._model.named_parameters()
        self._frozen = {name for name, each in weights if not each.requires_grad}
        with own_random_state(self._device, self._seed):
            self._like = next(iter(dataset))
            if state.global_step:
                self._load(checkpoint_folder(args, state) / _FILE)
            else:
                self._train(model, args, max(1, min(MAX_STEPS, state.max_steps // 2)))
        self._model.eval().requires_grad_(False)
        self._file = Path(str(args.output_dir)) / RUN_FOLDER / _FILE
        if runtime.is_main_process():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.unlink(missing_ok=True)  # checkpoints of an earlier run may share it
            save_file(self._state(), self._file)
        self._on_begin(self)

    def save(self, folder: Path) -> None:
        """Put the copy's weights into a checkpoint; the main process calls this."""
        link(str(self._file), str(folder / _FILE))

    def member(self) -> Member:
        """The member of a committee, once training has begun."""
        assert self._model is not None
        return Member(self.predict)

    @torch.no_grad()
    def predict(self, texts: Sequence[str]) -> Tensor:
        """Predictions (n, C) for n texts, float32, on the CPU."""
        label = self._rows[0].label  # features have one, and the collator may want it
        rows = [_row(text, label) for text in texts]
        parts = []
        for at in range(0, len(rows), self._batch_size):
            parts.append(self._logits(rows[at : at + self._batch_size]).float().cpu())
        logits = torch.cat(parts)
        if self._problem_type == REGRESSION:
            return logits
        return logits.sigmoid() if self._problem_type == MULTI_LABEL else logits.softmax(-1)

    @property
    def _device(self) -> torch.device:
        return torch.device(next(self._model.parameters()).device)

    def _logits(self, rows: Sequence[MixedExample]) -> Tensor:
        batch = self._collator.collate(self._collator.mixed_features(rows, self._like))
        inputs = {
            name: value.to(self._device) if isinstance(value, Tensor) else value
            for name, value in batch.items()
            if name != "labels"  # with them, a head computes a loss of its own
        }
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            return logits_of(self._model(**inputs))

    def _train(self, original: nn.Module, args: TrainingArguments, steps: int) -> None:
        started = time.monotonic()
        parameters = [each for each in self._model.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=args.learning_rate, weight_decay=args.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(1.0, (step + 1) / (_WARMUP * steps)) * (steps - step) / steps,
        )
        self._model.train()
        for step, places in enumerate(self._batches(args.train_batch_size, steps)):
            rows = [self._rows[place] for place in places]
            targets = torch.tensor([row.label for row in rows], device=self._device)
            row_losses(
                self._logits(rows), targets, self._problem_type, class_weights=self._class_weights
            ).mean().backward()
            if step == 0 and all(each.grad is None for each in parameters):
                original.zero_grad()
                raise _not_copyable(original, "its copy runs the original's layers")
            if args.max_grad_norm:
                nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if runtime.world_size() > 1:  # kernels may differ in the last digits
            self._model.load_state_dict(runtime.agree_on_weights(self._state()), strict=False)
        runtime.log(
            f"a copy of the model was trained on the {len(self._rows)} real rows for {steps} steps "
            f"({time.monotonic() - started:.0f} s), to vote in the committee"
        )

    def _batches(self, size: int, steps: int) -> Iterator[list[int]]:
        """So many batches, of all rows before one is taken again."""
        rng = runtime.counter_rng(self._seed, _ORDER)
        places: list[int] = []
        for _ in range(steps):
            while len(places) < size:
                places += rng.permutation(len(self._rows)).tolist()
            yield places[:size]
            places = places[size:]

    def _state(self) -> dict[str, Tensor]:
        """What training may have changed: all but frozen weights, on the device."""
        state = self._model.state_dict()
        return {name: each.clone() for name, each in state.items() if name not in self._frozen}

    def _load(self, file: Path) -> None:
        if not file.is_file():
            raise errors.InvalidInput(
                f"The committee has the member {MEMBER!r}, but {file} is not there: a copy made "
                "of the resumed model would label rows in another way. Resume from a checkpoint in "
                "this output_dir that was made with that member, or start again."
            )
        self._model.load_state_dict(load_file(file, device=str(self._device)), strict=False)


def _row(text: str, label: Sequence[float]) -> MixedExample:
    """A text in the form in which the collator makes features."""
    return MixedExample(text, tuple(label), 1.0, (), (), 0, 0, 0, "")


def _copy_of(model: nn.Module) -> Any:
    """A deep copy of a model, without the autocast that accelerate put around its `forward`.

    Raises:
        InvalidInput: Weights in shards or of 4 or 8 bits, or something that cannot be copied.
    """
    if runtime.is_sharded() or any(hasattr(each, "device_mesh") for each in model.parameters()):
        raise _not_copyable(model, "its weights are in shards")
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None) is not None:
        raise _not_copyable(model, "its weights are quantized")
    try:
        copied = copy.deepcopy(model)
    except Exception as error:
        raise _not_copyable(model, str(error)) from error
    if "_original_forward" in copied.__dict__:
        copied.__dict__.pop("forward", None)
    return copied


def _not_copyable(model: nn.Module, reason: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"The member {MEMBER!r} of `committee` trains a copy of the model, but "
        f"{type(model).__name__} cannot be copied: {reason}. "
        f"Leave {MEMBER!r} out of `committee`."
    )


@contextmanager
def own_random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Random states of torch, numpy and Python for the block; the global ones are restored.

    A data set or a `preprocess` hook of the user's may draw from any of them.
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
