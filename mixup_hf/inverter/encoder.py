"""Text to embedding: the aligner's frozen encoder, and the model in training."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from mixup_hf import errors, runtime
from mixup_hf.inverter.pretrained import load_model, load_tokenizer, readable

Pooling = Literal["mean", "cls", "last"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last")
# As sentence-transformers names them.
_POOLING_MODES: dict[str, Pooling] = {
    "mean_tokens": "mean",
    "mean": "mean",
    "cls_token": "cls",
    "cls": "cls",
    "lasttoken": "last",
}


class _Encoder:
    """Texts to embeddings, by a transformers encoder and a way of pooling.

    Args:
        model: A transformers encoder.
        tokenizer: Its tokenizer.
        pooling: How token states become one vector: mean over tokens, first token, or last token.
        normalize: Whether embeddings are scaled to unit length.
        prefix: Text put before every input, such as the `query: ` that E5 models expect.
        max_length: Longest input in tokens; longer texts are cut.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pooling: Pooling = "mean",
        normalize: bool = True,
        prefix: str = "",
        max_length: int = 128,
    ) -> None:
        errors.one_of("pooling", pooling, POOLINGS)
        self.model = model
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.normalize = normalize
        self.prefix = prefix
        positions = getattr(model.config, "max_position_embeddings", None) or max_length
        self.max_length = min(max_length, positions, tokenizer.model_max_length)

    @property
    def embedding_dim(self) -> int:
        """D, the width of an embedding."""
        return int(self.model.config.hidden_size)

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 128, progress: bool = True
    ) -> Tensor:
        """Embed texts.

        Args:
            texts: N non-empty strings.
            batch_size: Rows per forward pass.
            progress: Show a progress bar once it has taken two seconds.

        Returns:
            Embeddings (N, D), float32, on the CPU, in the order of `texts`.
        """
        errors.texts("texts", texts)
        # Texts of similar length share a batch, which saves padding.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        result = torch.empty(len(texts), self.embedding_dim)
        starts = range(0, len(order), batch_size)
        bar_of = runtime.progress_bar(len(starts), "embedding", disable=not progress)
        with bar_of as bar, runtime.layers_as_steps(self.model):
            for start in starts:
                rows = order[start : start + batch_size]
                result[rows] = self._embed([self.prefix + texts[row] for row in rows])
                bar.update()
        return result

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> Tensor:
        return self._pooled(texts).float().cpu()

    def _pooled(self, texts: list[str], max_length: int | None = None) -> Tensor:
        """Embeddings (n, D) on the model's device."""
        longest = max_length or self.max_length
        batch = self.tokenizer(
            texts, padding=True, truncation=True, max_length=longest, return_tensors="pt"
        ).to(self.model.device)
        states = self.model(**batch).last_hidden_state
        return pool(states, batch["attention_mask"], self.pooling, self.normalize)


class FrozenEncoder(_Encoder):
    """An encoder that never changes: embeddings computed today are valid in every later run.

    The model is put in evaluation mode and frozen. Arguments are those of `from_pretrained`'s
    `settings`: `pooling`, `normalize`, `prefix` and `max_length`.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **settings: Any
    ) -> None:
        super().__init__(model.eval().requires_grad_(False), tokenizer, **settings)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: torch.device | str = "cpu", **settings: Any
    ) -> FrozenEncoder:
        """Load from a folder.

        Args:
            path: The folder.
            device: Where the model goes.
            **settings: Keyword arguments of the class. Without `pooling`, the folder's own is used
                (`folder_pooling`), or mean pooling if it has none.

        Raises:
            InvalidInput: `pooling` is not the one the folder was made for, or that one is not
                supported.
        """
        with readable(path):
            own = folder_pooling(Path(path))
        pooling = settings.setdefault("pooling", own or "mean")
        if own is not None and pooling != own:
            raise errors.bad(
                "pooling", f"be {own!r} for {path}, as its pooling config states", pooling
            )
        model = load_model(AutoModel, path, dtype=torch.float32)
        return cls(model.to(device), load_tokenizer(path), **settings)


class TunableEncoder(_Encoder):
    """A copy of an encoder whose weights may be trained, but for its embedding table.

    Args:
        encoder: The encoder to copy; it is not modified.
        tuned_length: Longest input of `embed` in tokens: a step with gradients costs three times
            as much as embedding. `encode` reads as much as the original.
    """

    def __init__(self, encoder: _Encoder, *, tuned_length: int = 64) -> None:
        super().__init__(
            copy.deepcopy(encoder.model).requires_grad_(True),
            encoder.tokenizer,
            pooling=encoder.pooling,
            normalize=encoder.normalize,
            prefix=encoder.prefix,
            max_length=encoder.max_length,
        )
        # Few texts hold few words: the table has little to learn from them and most to lose.
        table = getattr(self.model, "embeddings", None) or self.model.get_input_embeddings()
        table.requires_grad_(False)
        self.tuned_length = min(tuned_length, self.max_length)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embed n texts as (n, D), with gradients, on the model's device."""
        return self._pooled([self.prefix + text for text in texts], self.tuned_length)


class TaskEncoder(_Encoder):
    """The model in training, in its current state; its training mode is restored."""

    def _embed(self, texts: list[str]) -> Tensor:
        training = self.model.training
        self.model.eval()
        try:
            return super()._embed(texts)
        finally:
            self.model.train(training)


def folder_pooling(folder: Path) -> Pooling | None:
    """The pooling a sentence-transformers folder was trained with; None if it does not state any.

    Raises:
        InvalidInput: It is one that is not supported, or several.
    """
    path = folder / "1_Pooling"
    modules = folder / "modules.json"
    if modules.is_file():
        listed = json.loads(modules.read_text(encoding="utf-8"))
        named = [each["path"] for each in listed if each["type"].endswith("Pooling")]
        path = folder / named[0] if named else path
    if not (path / "config.json").is_file():
        return None
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    chosen = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True]
    chosen = [mode for mode in chosen if f"pooling_mode_{mode}" in config]
    if isinstance(config.get("pooling_mode"), str):  # as newer releases write it
        chosen = config["pooling_mode"].split("+")
    if len(chosen) != 1 or chosen[0] not in _POOLING_MODES:
        raise errors.bad(
            "encoder", f"use one of the poolings {', '.join(POOLINGS)}", "+".join(chosen), str(path)
        )
    return _POOLING_MODES[chosen[0]]


def pool(states: Tensor, mask: Tensor, pooling: Pooling, normalize: bool) -> Tensor:
    """Pool token states (B, T, D) with mask (B, T) to embeddings (B, D)."""
    if pooling == "cls":
        pooled = states[:, 0]
    elif pooling == "last":
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        pooled = states[torch.arange(len(states), device=states.device), last]
    else:
        weights = mask.unsqueeze(-1).to(states.dtype)
        pooled = (states * weights).sum(1) / weights.sum(1)
    return F.normalize(pooled, dim=-1) if normalize else pooled
