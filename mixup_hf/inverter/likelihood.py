"""How likely the inverter's LLM finds a label's name after a text.

A text and all names are read in one pass: the names stand side by side behind the text, and each
sees the text and itself. So a text costs its own tokens once and those of the names, not one pass
per class, and a name of one token costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixup_hf import runtime
from mixup_hf.inverter.lora import without_lora

TEMPLATE = "{text}\nThe topic of this text is:"
_MAX_TOKENS = 96  # of a text
_BATCH_TOKENS = 2048  # per forward pass
_MOST_LOGITS = 512  # per forward pass: each is as wide as the vocabulary
_HIDDEN = -1e38  # added to the attention score of what is not to be seen; finite in bf16, too


@torch.inference_mode()
def label_log_likelihood(
    llm: Any,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    names: Sequence[str],
    *,
    template: str = TEMPLATE,
    lora: Path | None = None,
) -> Tensor:
    """Mean log-likelihood per token of each name after each text.

    Args:
        llm: A causal LM whose attention takes masks of (B, 1, T, T), as `sdpa` and `eager` do.
        tokenizer: Its tokenizer.
        texts: (n); of each, the first 96 tokens are read.
        names: Of the classes (C).
        template: What stands before the name; `{text}` is the text's place.
        lora: The folder of the aligner whose LoRA the LLM has: it is read as if it had none.

    Returns:
        (n, C), in nats per token, float32, on the CPU.
    """
    if not len(texts):
        return torch.empty(0, len(names))
    before, _, after = template.partition("{text}")
    start, end = (
        tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after)
    )
    contents = tokenizer(
        list(texts), add_special_tokens=False, truncation=True, max_length=_MAX_TOKENS
    )["input_ids"]
    questions = [[*start, *content, *end] for content in contents]
    answers = tokenizer([f" {name}" for name in names], add_special_tokens=False)["input_ids"]
    order = sorted(range(len(questions)), key=lambda row: len(questions[row]))
    result = torch.empty(len(questions), len(answers))
    read = sum(len(answer) - 1 for answer in answers)
    with without_lora(llm, lora), runtime.layers_as_steps(llm):
        while order:
            width = len(questions[order[-1]]) + read
            size = max(1, min(_BATCH_TOKENS // width, _MOST_LOGITS // (read + 1)))
            rows, order = order[-size:], order[:-size]
            result[rows] = _scores(llm, [questions[row] for row in rows], answers)
    return result


def _scores(
    llm: Any, questions: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> Tensor:
    """Mean log-likelihood per token (n, C) of the answers after each question."""
    device = llm.get_input_embeddings().weight.device
    # The last token of an answer is only predicted.
    read = torch.tensor([token for answer in answers for token in answer[:-1]], dtype=torch.int64)
    depth = torch.tensor([at for answer in answers for at in range(len(answer) - 1)])
    owner = torch.tensor([at for at, answer in enumerate(answers) for _ in answer[:-1]])
    width = max(map(len, questions))
    ids = torch.zeros(len(questions), width + len(read), dtype=torch.int64)
    places = torch.zeros_like(ids)
    seen = torch.zeros(len(ids), ids.shape[1], ids.shape[1], dtype=torch.bool)
    own = (owner[:, None] == owner) & (depth[:, None] >= depth)
    for row, question in enumerate(questions):
        first = width - len(question)  # padded on the left: all questions end where answers begin
        ids[row, first:width] = torch.tensor(question)
        places[row, first:width] = torch.arange(len(question))
        places[row, width:] = len(question) + depth
        seen[row, first:width, first:width] = torch.ones(len(question), len(question)).tril() > 0
        seen[row, width:, first:width] = True
    ids[:, width:] = read
    seen[:, width:, width:] = own
    seen.diagonal(dim1=1, dim2=2).fill_(True)  # padding sees itself: a softmax needs something
    mask = torch.zeros(seen.shape).masked_fill_(~seen, _HIDDEN)[:, None]
    logits = llm(
        input_ids=ids.to(device),
        attention_mask=mask.to(device, llm.get_input_embeddings().weight.dtype),
        position_ids=places.to(device),
        use_cache=False,
        logits_to_keep=len(read) + 1,
    ).logits
    found = logits.float().log_softmax(-1)  # (n, 1 + R, V): after the question, then after R tokens
    result = torch.empty(len(ids), len(answers))
    starts = torch.tensor([0, *(len(answer) - 1 for answer in answers)]).cumsum(0).tolist()
    for at, answer in enumerate(answers):
        after = [0, *range(1 + starts[at], 1 + starts[at + 1])]
        result[:, at] = found[:, after, list(answer)].mean(1).cpu()
    return result
