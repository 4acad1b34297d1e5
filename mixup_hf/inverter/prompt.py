"""The prompt T(.): text, hints, K soft tokens, text. All rows have the same length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors
from mixup_hf.inverter.aligner import Aligner

_PLACE = "<<soft tokens>>"  # marks the user content in the chat template


class SoftPrompt(nn.Module):
    """Prompt embeddings from sentence embeddings: text, hints, soft tokens, text.

    The text parts and the hints are looked up once in the LLM's embedding table.

    Args:
        aligner: Its projector produces the soft tokens; its lexicon, if any, selects the hints.
        before: Embeddings (P1, H) of the text before hints and soft tokens; may be empty.
        after: Embeddings (P2, H) of the text after them; may be empty.
        words: The LLM's embeddings (V', H) of the lexicon's words; empty without a lexicon.
    """

    before: Tensor
    after: Tensor
    words: Tensor

    def __init__(self, aligner: Aligner, before: Tensor, after: Tensor, words: Tensor) -> None:
        super().__init__()
        self.projector = aligner.projector
        self.hints = aligner.hints
        for name, value in (("before", before), ("after", after), ("words", words)):
            self.register_buffer(name, value, persistent=False)

    @classmethod
    def build(cls, aligner: Aligner, llm: Any, tokenizer: PreTrainedTokenizerBase) -> SoftPrompt:
        """Build from an aligner and an LLM, using the LLM's embedding table."""
        table, config = llm.get_input_embeddings(), aligner.config
        before, after = (
            _embed(tokenizer(text, add_special_tokens=False)["input_ids"] if text else [], table)
            for text in (config.prompt_prefix, config.prompt_suffix)
        )
        ids = [] if aligner.hints is None else aligner.hints.lexicon.token_ids.tolist()
        return cls(aligner, before, after, _embed(ids, table))

    @property
    def length(self) -> int:
        """Number of positions in a prompt."""
        hints = 0 if self.hints is None else self.hints.num_hints
        return len(self.before) + hints + self.projector.num_soft_tokens + len(self.after)

    def forward(self, embeddings: Tensor, preferred: Tensor | None = None) -> Tensor:
        """Prompt embeddings (B, P, H), float32, for embeddings (B, D).

        Args:
            embeddings: (B, D).
            preferred: How far words are preferred as hints (B, V'); see `Lexicon.best`.
        """
        soft = self.projector(embeddings)
        before, after = (
            part.to(soft.dtype).expand(len(soft), -1, -1) for part in (self.before, self.after)
        )
        hints = [] if self.hints is None else [self.hints(embeddings, self.words, preferred)]
        return torch.cat([before, *hints, soft, after], dim=1)


def prompt_texts(
    tokenizer: PreTrainedTokenizerBase, prefix: str, suffix: str, *, chat: bool
) -> tuple[str, str]:
    """Return the text around the soft tokens, in the format the LLM expects.

    Args:
        tokenizer: The LLM's tokenizer.
        prefix: Text before the soft tokens.
        suffix: Text after them.
        chat: Whether to wrap the whole prompt as the user turn of the LLM's chat template.

    Returns:
        The text before and after, with special tokens written out. If the tokenizer prepends a BOS
        token to every text, the first part starts with it.

    Raises:
        ValueError: `chat` is set but the tokenizer has no chat template.
    """
    if chat:
        if not tokenizer.chat_template:
            raise errors.InvalidInput(
                "`prompt_chat` needs an LLM with a chat template, but the tokenizer has none. Set "
                "`prompt_chat: false`, or use the instruction-tuned LLM."
            )
        turn = [{"role": "user", "content": f"{prefix}{_PLACE}{suffix}"}]
        rendered = str(
            tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        )
        prefix, suffix = rendered.split(_PLACE)
    opening = tokenizer("")["input_ids"]
    bos = tokenizer.bos_token_id
    if bos is not None and opening[:1] == [bos] and not prefix.startswith(str(tokenizer.bos_token)):
        prefix = f"{tokenizer.bos_token}{prefix}"
    return prefix, suffix


def input_rms(llm: Any) -> float:
    """Root mean square of the LLM's input embeddings, as its layers see them.

    Some models (e.g. Gemma) scale embeddings after the lookup, so the raw weights are not used.
    """
    table = llm.get_input_embeddings()
    weight = next(table.parameters())
    total = 0.0
    with torch.no_grad():
        for ids in torch.arange(len(weight), device=weight.device).split(4096):
            total += float(table(ids).float().square().sum())
    return float((total / weight.numel()) ** 0.5)


def end_ids(tokenizer: PreTrainedTokenizerBase, llm: Any) -> Sequence[int]:
    """Token ids that end a sentence, from both the tokenizer and the generation config."""
    named = llm.generation_config.eos_token_id if llm.generation_config is not None else None
    listed = [] if named is None else [named] if isinstance(named, int) else list(named)
    return sorted({int(tokenizer.eos_token_id), *listed})


def _embed(ids: list[int], table: nn.Module) -> Tensor:
    weight = next(table.parameters())
    with torch.no_grad():
        embedded: Tensor = table(torch.tensor(ids, dtype=torch.long, device=weight.device))
    return embedded.detach().float()
