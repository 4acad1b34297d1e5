"""How likely the inverter's LLM finds a label's name after a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

_MAX_TOKENS = 96  # of a text


@torch.inference_mode()
def label_log_likelihood(
    llm: Any,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    names: Sequence[str],
    *,
    template: str = "{text}\nThe topic of this text is:",
    batch_size: int = 64,
) -> Tensor:
    """Mean log-likelihood per token of each name after each text.

    Args:
        llm: A causal LM.
        tokenizer: Its tokenizer.
        texts: (n).
        names: Of the classes (C).
        template: What stands before the name; `{text}` is the text's place.
        batch_size: Sequences per forward pass.

    Returns:
        (n, C), in nats per token.
    """
    before, _, after = template.partition("{text}")
    start, end = (
        tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after)
    )
    contents = tokenizer(
        list(texts), add_special_tokens=False, truncation=True, max_length=_MAX_TOKENS
    )["input_ids"]
    answers = tokenizer([f" {name}" for name in names], add_special_tokens=False)["input_ids"]
    sequences = [([*start, *content, *end], answer) for content in contents for answer in answers]
    order = sorted(range(len(sequences)), key=lambda at: sum(map(len, sequences[at])))
    result = torch.empty(len(sequences))
    for at in range(0, len(order), batch_size):
        rows = order[at : at + batch_size]
        result[rows] = _scores(llm, [sequences[row] for row in rows])
    return result.reshape(len(contents), len(answers))


def _scores(llm: Any, sequences: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    """Mean log-likelihood per token (n,) of each answer after its question."""
    width = max(len(question) + len(answer) for question, answer in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.int64)
    is_answer = torch.zeros(len(sequences), width, dtype=torch.bool)
    for row, (question, answer) in enumerate(sequences):
        # Padded on the right: causal attention never looks there.
        ids[row, : len(question) + len(answer)] = torch.tensor(question + answer)
        is_answer[row, len(question) : len(question) + len(answer)] = True
    device = llm.get_input_embeddings().weight.device
    shortest = min(len(question) for question, _ in sequences)
    kept = width - shortest + 1  # logits only where an answer can stand
    logits = llm(input_ids=ids.to(device), logits_to_keep=kept).logits[:, :-1].float().cpu()
    targets = ids[:, -kept + 1 :]
    losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    mask = is_answer[:, -kept + 1 :]
    return -(losses * mask).sum(1) / mask.sum(1)
