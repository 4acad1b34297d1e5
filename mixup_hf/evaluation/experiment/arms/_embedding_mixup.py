"""Mixup of embeddings without decoding: the baseline that decoded sentences must beat.

The inputs to the classifier head are mixed between the rows of a batch, and so are their labels
(mixup of sentence representations, Guo et al., arXiv 1905.08941).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from mixup_hf import errors
from mixup_hf.mixing.weights.beta import Beta
from mixup_hf.runtime import counter_rng
from mixup_hf.training.loss import logits_of, row_losses

_MIXING = 8  # purpose of the random stream; part of its key


class EmbeddingMixup:
    """Doubles every training batch inside the model by adding as many mixes as it has rows.

    Args:
        names: Class names (C).
        alpha: Ratios are drawn from Beta(alpha, alpha).
        seed: Seed for partners and ratios.
    """

    def __init__(self, names: list[str], *, alpha: float = 0.4, seed: int = 0) -> None:
        self.num_labels = len(names)
        self.alpha, self.seed = alpha, seed

    def trainer_kwargs(
        self, tokenizer: PreTrainedTokenizerBase, *, max_length: int | None = None
    ) -> dict[str, Any]:
        """Return keyword arguments for `Trainer(...)`."""
        callback = _Hook(self)
        return {
            "data_collator": DataCollatorWithPadding(tokenizer),
            "callbacks": [callback],
            "compute_loss_func": callback.loss,
        }


class _Hook(TrainerCallback):
    """Intercepts the input of the head during training."""

    def __init__(self, settings: EmbeddingMixup) -> None:
        self._settings = settings
        self._batches = 0
        self._drawn: tuple[Tensor, Tensor] | None = None
        self._handle: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Hook into the classifier head."""
        head = getattr(kwargs["model"], "classifier", None)
        if not isinstance(head, nn.Module):
            raise errors.InvalidInput(
                f"`model` must have a `classifier`, as BERT-like models do, but got "
                f"{type(kwargs['model']).__name__}. Leave the arm 'embedding_mixup' out."
            )
        self._handle = head.register_forward_pre_hook(self._mix)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the model to its original state."""
        if self._handle is not None:
            self._handle.remove()

    def _mix(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not head.training:
            return None
        rows = inputs[0]
        rng = counter_rng(self._settings.seed, _MIXING, self._batches)
        self._batches += 1
        partners = torch.from_numpy(rng.permutation(len(rows))).to(rows.device)
        drawn = Beta(self._settings.alpha).sample(len(rows), rng)
        lams = torch.from_numpy(drawn).to(rows.device, torch.float32)
        self._drawn = partners, lams
        shape = (-1, *(1,) * (rows.ndim - 1))
        mixed = torch.lerp(rows[partners], rows, lams.to(rows.dtype).view(shape))
        return (torch.cat([rows, mixed]), *inputs[1:])

    def loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        """Cross-entropy of the rows; during training, soft cross-entropy of rows and mixes."""
        logits = logits_of(outputs)
        if self._drawn is None or len(logits) == len(labels):
            return F.cross_entropy(logits.float(), labels)
        partners, lams = self._drawn
        self._drawn = None
        logits = logits.float()  # under autocast, the head's logits are not float32
        targets = F.one_hot(labels, self._settings.num_labels).float()
        mixed = torch.lerp(targets[partners], targets, lams[:, None])
        rows = row_losses(logits, torch.cat([targets, mixed]))
        # The Trainer counts only real rows over all accumulation steps; the mixes double that.
        return rows.mean() if num_items_in_batch is None else rows.sum() / (2 * num_items_in_batch)
