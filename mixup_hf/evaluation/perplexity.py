"""How likely texts are to a language model: one that has not made them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from mixup_hf.data.sources import resolve
from mixup_hf.inverter.pretrained import load_model, load_tokenizer

_BATCH = 8  # the logits of 256 tokens of so many texts over a large vocabulary are 1 GB
_LONGEST = 256  # tokens of a text that are looked at


class LanguageModel:
    """Reads texts and says how likely each was; a `quality.LogLikelihood`.

    Args:
        name: A causal language model: a folder, a Hub id, or the name of an embedded one.
        revision: Hub revision.
        device: Where it goes.
    """

    def __init__(
        self, name: str, *, revision: str | None = None, device: torch.device | str = "cpu"
    ) -> None:
        path = resolve(name, revision=revision).path
        self.tokenizer: Any = load_tokenizer(path)
        llm = load_model(AutoModelForCausalLM, path, dtype=torch.float32)
        self.llm = llm.to(device).eval()

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Negative log-likelihoods (N,) in nats, and how many tokens each text has (N,)."""
        losses, tokens = [], []
        for at in range(0, len(texts), _BATCH):
            ids, real = self._padded(texts[at : at + _BATCH])
            logits = self.llm(input_ids=ids, attention_mask=real.long()).logits[:, :-1].float()
            each = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
            losses.append((each * real[:, 1:]).sum(1).cpu().numpy())
            tokens.append(real[:, 1:].sum(1).cpu().numpy())
        return np.concatenate(losses), np.concatenate(tokens)

    def _padded(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids (B, 1 + T), an opening token first so that a text's first token counts too."""
        opening = self.tokenizer.bos_token_id
        opening = self.tokenizer.eos_token_id if opening is None else opening
        rows = self.tokenizer(list(texts), add_special_tokens=False).input_ids
        rows = [torch.tensor([opening, *row[:_LONGEST]]) for row in rows]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=opening)
        lengths = torch.tensor([len(row) for row in rows])
        real = torch.arange(ids.shape[1])[None] < lengths[:, None]
        return ids.to(self.llm.device), real.to(self.llm.device)
