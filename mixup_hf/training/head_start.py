"""A head that begins where a linear probe ends, instead of at random numbers.

A new classification head is random, so the first steps of fine-tuning move the body towards noise,
and a learning rate that suits the head is too large for the body. Fitting the head alone first, in
closed form, and fine-tuning everything from there is LP-FT (Kumar et al., arXiv 2202.10054).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import TrainerState, TrainingArguments

from mixup_hf import runtime
from mixup_hf.judging.labels.heads import fit_linear
from mixup_hf.judging.sampling import sample_of
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.loss import logits_of
from mixup_hf.training.rehearsal import own_random_state
from mixup_hf.types import MixedExample

MAX_ROWS = 2000
_ASKED = 250  # about so many rows show whether a head knows the task
_STRENGTH = 1.0  # inverse regularization of the head, scikit-learn's C
_KNOWS_NOTHING = 0.9  # of the loss of a guess: a head that does better has been trained
_HIGH_RATE = 1e-4  # above it a whole model forgets what the fitted head relies on
_WHOLE_MODEL = 0.2  # a larger share of the weights in training is no adapter
_ORDER = 14  # what this stream of random numbers is for; part of its key


class HeadStart:
    """Fits the last linear layer of the model to the training rows, before the first step.

    Only a head that knows nothing is replaced: one whose cross entropy on the training rows is
    about that of a guess. A resumed run, weights in shards, a layer that is not trained and a model
    whose logits come from no linear layer are left as they are.

    Args:
        texts: The training texts (N).
        targets: Their labels (N, C), one class each.
        collator: Makes the model's inputs, as it makes those of mixed rows.
        seed: Seed of the rows that are used where there are more than 2,000, of every class some.
        balanced: All classes count the same, whatever their rows.

    Attributes:
        steps: 0: a fit takes no optimizer steps.
    """

    def __init__(
        self,
        texts: Sequence[str],
        targets: Tensor,
        collator: MixupCollator,
        seed: int = 0,
        *,
        balanced: bool = False,
    ) -> None:
        order = runtime.counter_rng(seed, _ORDER).permutation(len(texts))
        if len(texts) > MAX_ROWS:  # as many of each class as its share, and some at least
            order = sample_of(targets.argmax(1).numpy(), seed, "The head is fitted", MAX_ROWS)
        self._rows = [as_row(texts[at], targets[at]) for at in order.tolist()]
        self._collator, self._seed, self._balanced = collator, seed, balanced
        self.steps = 0

    def begin(self, model: Any, dataset: Any, args: TrainingArguments, state: TrainerState) -> None:
        """Fit the head, as `Begins.begin`; all processes get the same weights."""
        if state.global_step or runtime.is_sharded():
            return
        started = time.monotonic()
        found = self._look(model, dataset, args, self._rows)
        if found is None:
            runtime.log(
                "the head is left unchanged: the logits do not come from a trainable linear layer"
            )
            return
        head, features, logits = found
        classes = _classes(self._rows)
        before = F.cross_entropy(logits, classes).item()
        single = len(classes.unique()) == 1
        if single or _is_known(before, logits):
            reason = "the rows have one class" if single else "it already fits the training rows"
            runtime.log(f"the head is left unchanged: {reason} (cross-entropy {before:.2f})")
            return
        weight, bias = fit_linear(
            features.double().numpy(),
            classes.numpy(),
            _STRENGTH,
            logits.shape[1],
            intercept=head.bias is not None,
            balanced=self._balanced,
        )
        _put(head, torch.from_numpy(weight), torch.from_numpy(bias))
        fitted = features @ torch.from_numpy(weight).float().T + torch.from_numpy(bias).float()
        runtime.log(
            f"the head starts from a linear fit to {len(classes)} training rows, cross entropy "
            f"{before:.2f} -> {F.cross_entropy(fitted, classes).item():.2f} "
            f"({time.monotonic() - started:.0f} s; `head_start: false` leaves it as it is)"
        )
        if args.learning_rate > _HIGH_RATE and _share_in_training(model) > _WHOLE_MODEL:
            runtime.warn(
                f"The learning rate is {args.learning_rate:g}. From a fitted head, 2e-4 cost "
                "3.2 ± 1.1 points of accuracy against 5e-5 (five pairs, see RESULTS.md): try "
                "`learning_rate=5e-5`, or `head_start=False` if the rate has to stay."
            )

    def knows(self, model: Any, dataset: Any, args: TrainingArguments) -> bool:
        """Whether the model's head knows the task, by a look at some of the rows.

        Args:
            model: As for `begin`.
            dataset: As for `begin`.
            args: As for `begin`.
        """
        rows = self._rows[:: max(1, len(self._rows) // _ASKED)]
        found = self._look(model, dataset, args, rows)
        if found is None:
            return False
        return _is_known(F.cross_entropy(found[2], _classes(rows)).item(), found[2])

    def _look(
        self, model: Any, dataset: Any, args: TrainingArguments, rows: list[MixedExample]
    ) -> tuple[nn.Linear, Tensor, Tensor] | None:
        device = next(model.parameters()).device
        with own_random_state(device, self._seed), keeping_modes(model):
            model.eval()
            return self._read(model, next(iter(dataset)), args, rows)

    @torch.no_grad()
    def _read(
        self, model: Any, like: Any, args: TrainingArguments, rows: list[MixedExample]
    ) -> tuple[nn.Linear, Tensor, Tensor] | None:
        """The head, its inputs (N, H) and logits (N, C) on the CPU; None without such a head."""
        head: nn.Linear | None = None
        features, logits = [], []
        size = args.eval_batch_size
        for at in range(0, len(rows), size):
            features_of = self._collator.mixed_features(rows[at : at + size], like)
            batch = self._collator.collate(features_of)
            seen = _forward(model, batch, bool(args.bf16))
            if seen is None or (head is not None and seen[0] is not head):
                return None
            head = seen[0]
            features.append(seen[1].float().cpu())
            logits.append(seen[2].float().cpu())
        return None if head is None else (head, torch.cat(features), torch.cat(logits))


def _forward(model: Any, batch: Any, autocast: bool) -> tuple[nn.Linear, Tensor, Tensor] | None:
    """The trained linear layer that a model's logits (B, C) come from, its inputs, and the logits.

    Heads of encoders make (B, C) from (B, H). Those of decoders make (B, T, C) from all tokens, of
    which one is taken: the one whose scores are the logits.
    """
    device = next(model.parameters()).device
    inputs = without_labels(batch, device)
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def keep(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls.append((layer, args[0], output))  # type: ignore[arg-type]

    linear = [each for each in model.modules() if isinstance(each, nn.Linear)]
    handles = [each.register_forward_hook(keep) for each in linear if each.weight.requires_grad]
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            outputs = model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    logits = logits_of(outputs)
    for layer, given, made in reversed(calls):
        if made.shape == logits.shape and torch.equal(made, logits):
            return layer, given, logits
        if made.ndim == 3 and made.shape[::2] == logits.shape:
            same = (made == logits[:, None]).all(-1)
            if same.any(1).all():
                rows = torch.arange(len(given), device=given.device)
                return layer, given[rows, same.int().argmax(1)], logits
    return None


def _classes(rows: Sequence[MixedExample]) -> Tensor:
    return torch.tensor([row.label for row in rows]).argmax(1)


def _is_known(loss: float, logits: Tensor) -> bool:
    return bool(loss < _KNOWS_NOTHING * np.log(logits.shape[1]))


def _share_in_training(model: nn.Module) -> float:
    weights = list(model.parameters())
    return sum(w.numel() for w in weights if w.requires_grad) / sum(w.numel() for w in weights)


def _put(head: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    state = {"weight": weight.to(head.weight.device), "bias": bias.to(head.weight.device)}
    if runtime.world_size() > 1:  # kernels may differ in the last digits
        state = runtime.agree_on_weights(state)
    with torch.no_grad():
        head.weight.copy_(state["weight"])
        if head.bias is not None:
            head.bias.copy_(state["bias"])


def as_row(text: str, target: Tensor) -> MixedExample:
    """A training row with its label (C,), as the collator reads rows."""
    return MixedExample(text, tuple(target.tolist()), 1.0, (), (), 0, 0, 0, "")


def without_labels(batch: Any, device: torch.device) -> dict[str, Any]:
    """What a model reads of a batch: all but its labels, on the model's device."""
    return {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in batch.items()
        if name != "labels"
    }


@contextmanager
def keeping_modes(model: nn.Module) -> Iterator[None]:
    """After the block every module is in the mode, training or evaluation, that it was in."""
    modes = [(each, each.training) for each in model.modules()]
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training
