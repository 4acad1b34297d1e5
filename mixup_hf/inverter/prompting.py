"""The prompt T(.): text before, K soft tokens, text after; one length for every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from mixup_hf.inverter.projector import Projector


class SoftPrompt(nn.Module):
    """Prompt embeddings from sentence embeddings.

    The text parts come from the LLM's own table, looked up once.

    Args:
        projector: Embedding (B, D) to soft tokens (B, K, H).
        before: Embeddings (P1, H) of the text before the soft tokens; may be empty.
        after: Embeddings (P2, H) of the text after them; may be empty.
    """

    before: Tensor
    after: Tensor

    def __init__(self, projector: Projector, before: Tensor, after: Tensor) -> None:
        super().__init__()
        self.projector = projector
        self.register_buffer("before", before, persistent=False)
        self.register_buffer("after", after, persistent=False)

    @classmethod
    def build(
        cls,
        projector: Projector,
        llm: Any,
        tokenizer: PreTrainedTokenizerBase,
        prefix: str,
        suffix: str,
    ) -> SoftPrompt:
        """Build from prompt texts and the LLM whose table they are looked up in."""
        table = llm.get_input_embeddings()
        parts = [_embed(text, table, tokenizer) for text in (prefix, suffix)]
        return cls(projector, *parts)

    @property
    def length(self) -> int:
        """Positions of a prompt."""
        return len(self.before) + self.projector.num_soft_tokens + len(self.after)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Prompt embeddings (B, P, H), float32, for embeddings (B, D)."""
        soft = self.projector(embeddings)
        before, after = (
            part.to(soft.dtype).expand(len(soft), -1, -1) for part in (self.before, self.after)
        )
        return torch.cat([before, soft, after], dim=1)


def end_ids(tokenizer: PreTrainedTokenizerBase, llm: Any) -> Sequence[int]:
    """Token ids that end a sentence: the tokenizer's, and all the generation config names."""
    named = llm.generation_config.eos_token_id if llm.generation_config is not None else None
    listed = [] if named is None else [named] if isinstance(named, int) else list(named)
    return sorted({int(tokenizer.eos_token_id), *listed})


def _embed(text: str, table: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    weight = next(table.parameters())
    with torch.no_grad():
        embedded: Tensor = table(torch.tensor(ids, dtype=torch.long, device=weight.device))
    return embedded.detach().float()
