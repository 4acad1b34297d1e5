"""A contrastive term: rows of similar labels get similar embeddings from the model in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixup_hf import errors, runtime
from mixup_hf.data.targets import MULTI_LABEL, REGRESSION
from mixup_hf.judging.labels.contrastive import contrastive_loss as contrastive_loss

_WAY_OUT = "Set `contrastive_weight: 0`."


def mean_pool(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Means of hidden states (B, T, H) over the tokens that are attended to, float32 (B, H).

    Without an attention mask (B, T) all tokens are, as they are by the model.
    """
    if attention_mask is None:
        return hidden.float().mean(1)
    kept = attention_mask.to(hidden.device)[..., None].float()
    return (hidden.float() * kept).sum(1) / kept.sum(1).clamp(min=1)


def last_token(
    hidden: Tensor,
    attention_mask: Tensor | None,
    input_ids: Tensor | None = None,
    pad_token_id: int | None = None,
) -> Tensor:
    """States (B, H) of the last tokens of hidden states (B, T, H), float32.

    The last token is the one that the heads of transformers' decoders read, on whichever side a
    batch is padded: the rightmost that is not `pad_token_id`. Without token ids (B, T), or without
    such a token, it is the rightmost one that is attended to.

    Args:
        hidden: (B, T, H).
        attention_mask: (B, T); None: all tokens are attended to.
        input_ids: (B, T), or None.
        pad_token_id: The model's, or None.
    """
    kept = torch.ones(hidden.shape[:2]) if attention_mask is None else attention_mask
    if input_ids is not None and pad_token_id is not None:
        kept = input_ids != pad_token_id
    kept = kept.to(hidden.device, torch.int32)
    ends = (kept * torch.arange(kept.shape[1], device=kept.device, dtype=torch.int32)).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), ends].float()


@dataclass(frozen=True)
class Contrast:
    """How the contrastive term counts.

    Attributes:
        weight: Of `contrastive_loss` beside the cross entropy; with 0 it is not computed.
        optional: Leave the term out, with a line in the log, for a model that has no states to
            compare.
        rows: Which rows are compared: `real` ones, or `all` of a batch, generated ones by their
            soft labels.
    """

    weight: float = 0.0
    optional: bool = False
    rows: str = "real"


NO_CONTRAST = Contrast()


class ContrastiveTerm:
    """The contrastive term of a batch, from the hidden states of the model's body.

    Where attention looks at both sides, rows are compared by the mean of their tokens' states.
    Where it is causal, they are compared by their last token's state, the only one that has seen
    the whole text, and the one that the head reads.

    Args:
        model: The model being trained, not wrapped; or a PEFT model.
        contrast: How the term counts.
        problem_type: As in transformers' configs.

    Attributes:
        causal: Whether tokens see only those before them.

    Raises:
        InvalidInput: For regression, or for a model whose body cannot be found.
    """

    def __init__(self, model: nn.Module, contrast: Contrast, problem_type: str) -> None:
        check_contrastive(contrast.weight, problem_type)
        self.contrast = contrast
        self.weight = contrast.weight  # 0 once the term has been left out
        self.problem_type = problem_type
        self._model = type(model).__name__
        inner = _without_wrapper(model)
        self._body = _body_of(inner)
        self.causal = _is_causal(inner, self._body)
        self._pad_token_id = getattr(getattr(inner, "config", None), "pad_token_id", None)
        self._hidden: Tensor | None = None
        self._listening = False

    def install(self) -> Any:
        """Register the hook on the body.

        Returns:
            Its handle.
        """
        return self._body.register_forward_hook(self._keep)

    def listen(self) -> None:
        """Keep the hidden states of the forward pass that follows."""
        self._listening, self._hidden = True, None

    def take(
        self,
        targets: Tensor,
        attention_mask: Tensor | None,
        input_ids: Tensor | None = None,
        pool_rows: Tensor | None = None,
    ) -> Tensor | None:
        """The weighted term of the batch that went through, a scalar; None if it is left out.

        Args:
            targets: Soft or multi-hot labels (B, C), whatever their weight in the cross entropy.
            attention_mask: (B, T), or None.
            input_ids: (B, T), or None.
            pool_rows: Number of the generated row in the pool (B,), negative for real rows. None:
                all rows are real.

        Raises:
            InvalidInput: The body's states are not those of the batch's tokens, and the term is
                not `optional`.
        """
        if self.weight == 0:
            return None
        pooled = self.pooled(len(targets), attention_mask, input_ids)
        if pooled is None:
            if not self.contrast.optional:
                raise _no_states(self._model)
            self.weight = 0.0
            _log_left_out(_no_states(self._model))
            return None
        directions, labelled = _directions(targets, self.problem_type)
        compared = labelled
        if self.contrast.rows == "real" and pool_rows is not None:
            compared = labelled & (pool_rows.to(labelled.device) < 0)
        return self.weight * contrastive_loss(pooled[compared], directions[compared])

    def pooled(
        self, rows: int, attention_mask: Tensor | None, input_ids: Tensor | None = None
    ) -> Tensor | None:
        """Embeddings (B, H) of the batch that went through, float32.

        Args:
            rows: B.
            attention_mask: (B, T), or None.
            input_ids: (B, T), or None.

        Returns:
            One embedding per row; None where the body's states are not those of the tokens.
        """
        hidden, self._listening, self._hidden = self._hidden, False, None
        shape = None if hidden is None else hidden.shape[:2]
        wanted = attention_mask.shape if attention_mask is not None else shape
        if hidden is None or hidden.ndim != 3 or shape != wanted or len(hidden) != rows:
            return None
        if self.causal:
            return last_token(hidden, attention_mask, input_ids, self._pad_token_id)
        return mean_pool(hidden, attention_mask)

    def _keep(self, body: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        if not self._listening or self.weight == 0:
            return  # evaluation
        if isinstance(outputs, dict):
            self._hidden = outputs.get("last_hidden_state")
        else:
            self._hidden = outputs[0] if isinstance(outputs, tuple) else outputs


def contrastive_term(
    model: nn.Module, contrast: Contrast, problem_type: str
) -> ContrastiveTerm | None:
    """The term; None for weight 0, and where it is optional and the model has no states.

    Args:
        model: As for `ContrastiveTerm`.
        contrast: How the term counts.
        problem_type: As in transformers' configs.

    Raises:
        InvalidInput: As for `ContrastiveTerm`, unless the term is optional.
    """
    if not contrast.weight:
        return None
    try:
        return ContrastiveTerm(model, contrast, problem_type)
    except errors.InvalidInput as error:
        if not contrast.optional:
            raise
        _log_left_out(error)
        return None


def check_contrastive(weight: float, problem_type: str, label_format: str = "soft_labels") -> None:
    """Raise unless a term of this weight can be added to the loss.

    Raises:
        InvalidInput: A negative weight; or a positive one for regression, or beside a loss of the
            Trainer's own.
    """
    errors.at_least("contrastive_weight", weight, 0)
    if weight == 0:
        return
    if problem_type == REGRESSION:
        raise errors.bad("contrastive_weight", "be 0 for regression", weight, "It needs classes.")
    if label_format == "labels":
        raise errors.bad(
            "contrastive_weight",
            "be 0 with `explicit_loss`, where the Trainer's own function makes the loss",
            weight,
            "Leave `explicit_loss` out, or add mixup_hf.training.contrastive.contrastive_loss to "
            "your loss.",
        )


def _directions(targets: Tensor, problem_type: str) -> tuple[Tensor, Tensor]:
    """Labels (B, C) without weights, and which rows (B,) have any.

    The weight of a generated row is part of its soft label. Multi-hot labels get unit length.
    """
    power = 2 if problem_type == MULTI_LABEL else 1
    size = torch.linalg.vector_norm(targets, power, dim=-1)
    labelled = size > 0
    return targets / size.masked_fill(~labelled, 1.0)[:, None], labelled


def _without_wrapper(model: nn.Module) -> nn.Module:
    inner: nn.Module = getattr(model, "get_base_model", lambda: model)()  # PEFT's wrapper has it
    return inner


def _body_of(model: nn.Module) -> nn.Module:
    body = getattr(model, "base_model", None)
    if not isinstance(body, nn.Module) or body is model:
        raise _no_states(type(model).__name__)
    return body


def _log_left_out(error: errors.InvalidInput) -> None:
    runtime.log(f"training without the contrastive term: {error}")


def _is_causal(model: nn.Module, body: nn.Module) -> bool:
    """Whether tokens see only those before them.

    Attention layers of transformers say so, but for a few old ones, whose heads are called `score`
    as those of all decoders are.
    """
    layers = any(getattr(layer, "is_causal", False) is True for layer in body.modules())
    return layers or isinstance(getattr(model, "score", None), nn.Linear)


def _no_states(model: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"`contrastive_weight` needs one hidden state per token (B, T, H), and {model} has no "
        "`base_model` that returns them as `last_hidden_state`, as the sequence classification "
        f"models of transformers have. {_WAY_OUT}"
    )
