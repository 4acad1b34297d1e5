"""Contrastive tuning of the model's body on the training rows, before the first step.

SetFit (arXiv 2209.11055) tunes a sentence encoder contrastively and fits a head to it. The same
makes a better start for fine-tuning: a head that is fitted to a body as it is reads off it what
pre-training put there, which may be another thing than the task asks for. `HeadStart` comes next.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerState, TrainingArguments

from mixup_hf import errors, runtime
from mixup_hf.data.targets import SINGLE_LABEL
from mixup_hf.judging.labels.contrastive import LEARNING_RATE, count_steps, tune
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.contrastive import Contrast, ContrastiveTerm
from mixup_hf.training.head_start import HeadStart, as_row, keeping_modes, without_labels
from mixup_hf.training.rehearsal import own_random_state

_RATE = 2.0  # times the run's: whoever trains a large model at a low rate needs a low one here too
_LONGEST = 64  # tokens of a text: what is tuned is read by its beginning, at a third of the cost


class ContrastiveStart:
    """Draws the model's embeddings of rows of one class together, before the first step.

    Adapters are tuned where only they are trained, and the head stays as it is. A resumed run and
    weights in shards are left alone; so are, unless the user asked for this, models that have no
    embeddings to compare, decoders, for which nothing has been measured, and models whose head
    knows the task already. The learning rate is twice the run's, at most 1e-4.

    Args:
        texts: The training texts (N).
        targets: Their labels (N, C), one class each.
        collator: Makes the model's inputs, as it makes those of mixed rows.
        max_steps: Most optimizer steps, of 24 texts each.
        optional: The user has not asked for it.
        seed: Seed of batches and dropout.
        head: Tells whether the head knows the task already. Default: it does not.

    Attributes:
        steps: Optimizer steps before the run's first; 0 where nothing was tuned. A resumed run
            counts those of the run that it continues.
    """

    def __init__(
        self,
        texts: Sequence[str],
        targets: Tensor,
        collator: MixupCollator,
        *,
        max_steps: int,
        optional: bool = False,
        seed: int = 0,
        head: HeadStart | None = None,
    ) -> None:
        self._head = head
        self._texts, self._targets, self._collator = list(texts), targets, collator
        self._max_steps, self._optional, self._seed = max_steps, optional, seed
        self.steps = 0

    def begin(self, model: Any, dataset: Any, args: TrainingArguments, state: TrainerState) -> None:
        """Tune the body, as `Begins.begin`; all processes get the same weights.

        Raises:
            InvalidInput: The user asked for it, and the model has no embeddings to compare.
        """
        self.steps = 0
        term = None if runtime.is_sharded() else self._term(model)
        if term is None:
            return
        self.steps = count_steps(len(self._texts), self._max_steps)
        if state.global_step:
            return
        if self._optional and self._head is not None and self._head.knows(model, dataset, args):
            self.steps = 0
            runtime.log("the body is left unchanged: the head already fits the training rows")
            return
        started = time.monotonic()
        with own_random_state(next(model.parameters()).device, self._seed), keeping_modes(model):
            like = next(iter(dataset))
            body = _Body(model, term, self._collator, like, self._targets.shape[1], args.fp16)
            if not self._tune(body, term, args.learning_rate):
                self.steps = 0
                return
        _agree(model)
        runtime.log(
            f"the body was tuned contrastively on {len(self._texts):,} rows before the first step "
            f"({time.monotonic() - started:.0f} s; `contrastive_start: 0` leaves it as it is)"
        )

    def _term(self, model: Any) -> ContrastiveTerm | None:
        """What compares the model's embeddings; None where it has none, or is a decoder."""
        try:
            term = ContrastiveTerm(model, Contrast(1.0), SINGLE_LABEL)
        except errors.InvalidInput as error:
            if self._optional:
                return None  # the loss has the same term, and says why that is left out
            raise _refused(model) from error
        return None if term.causal and self._optional else term

    def _tune(self, body: _Body, term: ContrastiveTerm, learning_rate: float) -> bool:
        """Tune the body; False where it is frozen, or its states are not those of tokens."""
        handle = term.install()
        try:
            first = body.pooled(self._texts[:1])
            if first is None or not first.requires_grad:
                if self._optional:
                    return False
                raise _refused(body.model) if first is None else _frozen()
            tune(
                body,
                self._texts,
                self._targets.argmax(1).numpy(),
                max_steps=self._max_steps,
                seed=self._seed,
                learning_rate=min(_RATE * learning_rate, LEARNING_RATE),
            )
        finally:
            handle.remove()
        return True


class _Body:
    """The model being trained as something that embeds texts."""

    def __init__(
        self,
        model: Any,
        term: ContrastiveTerm,
        collator: MixupCollator,
        like: Any,
        num_labels: int,
        fp16: bool,
    ) -> None:
        self.model: nn.Module = model
        # Small gradients vanish in fp16, and no scaler works here: not in accelerate's autocast.
        self._forward = getattr(model, "_original_forward", model) if fp16 else model
        self._term, self._collator, self._like = term, collator, like
        self._no_label = torch.full((num_labels,), 1 / num_labels)

    def pooled(self, texts: Sequence[str]) -> Tensor | None:
        """Embeddings (n, H); None where the body has no state for each token."""
        rows = [as_row(text, self._no_label) for text in texts]
        batch = self._collator.collate(self._collator.mixed_features(rows, self._like))
        inputs = _cut(without_labels(batch, next(self.model.parameters()).device))
        self._term.listen()
        self._forward(**inputs)
        return self._term.pooled(len(texts), inputs.get("attention_mask"), inputs.get("input_ids"))

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (n, H), with gradients."""
        pooled = self.pooled(texts)
        if pooled is None:
            raise _refused(self.model)
        return pooled


def _refused(model: Any) -> errors.InvalidInput:
    rule = "be 0 for a model whose `base_model` gives no hidden state for each token (B, T, H)"
    return errors.bad("contrastive_start", rule, type(model).__name__)


def _frozen() -> errors.InvalidInput:
    rule = "be 0 for a model whose body is frozen: no weight of it would be tuned"
    return errors.bad("contrastive_start", rule, "a model whose embeddings need no gradient")


def _cut(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs (B, T) of at most 64 tokens: the first ones, or where padding is left, the last."""
    mask = inputs.get("attention_mask")
    if mask is None or mask.ndim != 2 or mask.shape[1] <= _LONGEST:
        return inputs
    width = mask.shape[1]
    kept = slice(width - _LONGEST, width) if (mask[:, 0] == 0).any() else slice(0, _LONGEST)
    return {
        name: value[:, kept] if isinstance(value, Tensor) and value.shape[1:] == (width,) else value
        for name, value in inputs.items()
    }


def _agree(model: nn.Module) -> None:
    """The main process's weights on all, because kernels may differ in the last digits."""
    if runtime.world_size() == 1:
        return
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    agreed = runtime.agree_on_weights({name: each.detach() for name, each in trained.items()})
    with torch.no_grad():
        for name, each in trained.items():
            each.copy_(agreed[name])
