"""Sentences of about a wanted length that end where the LLM finds an end likely.

While a sentence is decoded, each position is rated as an end: by the log-probability that the LLM
gives an end there, less what the distance to the wanted length costs. The sentence is cut at the
best one, as soon as no later one can be better. This takes no further step of decoding: on the
contrary, hardly any token beyond the wanted length is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

# Part of the key of cached sentences: count up when a constant below, or what it does, changes.
VERSION = 1
# Nats that a token too few or too many costs in a short sentence: an LLM tends to find an end
# likelier the later it is, so that equal costs would give sentences that are too long.
_EARLY, _LATE = 0.6, 1.2
# Beyond ten tokens, so many times less: distances count in relation to the wanted length.
_TOLERANCE = 0.1
# The most by which an early end is held back: an LLM that is sure of an end is right about it.
_MOST_HELD = 4.0
_LIKELIEST = 50  # tokens that stand for all of them when probabilities are computed
_CLOSING = re.compile(r"[.!?][\"')\]]*")
_NO_END_AFTER = re.compile(r"\d|[A-Z]")  # "2." may go on as "2.5", "J." as "J. Smith"
_QUESTION = re.compile(
    "what|which|who|whom|whose|where|why|how|is|are|was|were|do|does|did|can|could|would|should",
    re.IGNORECASE,
)


class Decodes(Protocol):
    """What is needed of a tokenizer."""

    def __len__(self) -> int: ...

    def batch_decode(self, sequences: list[list[int]]) -> list[str]:
        """The text of each sequence of token ids."""
        ...


@dataclass(frozen=True)
class EndTokens:
    """The tokens by which ends, and questions, are recognized.

    Attributes:
        ends: Ids that end a sentence.
        closing: Ids that close one: a full stop, a question mark.
        unclosed: Ids after which a full stop closes nothing: digits, initials.
        asking: Ids with a question mark.
        questions: Ids of words that begin an English question, and hardly ever a statement.
    """

    ends: Tensor
    closing: Tensor
    unclosed: Tensor
    asking: Tensor
    questions: Tensor

    @classmethod
    def of(cls, tokenizer: Decodes, end_ids: Sequence[int]) -> EndTokens:
        """Find them among the tokens of a tokenizer."""
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        bare = [text.strip() for text in texts]
        groups = (
            end_ids,
            # Not those with a space before them, which follow what is left open.
            [token for token, text in enumerate(texts) if _CLOSING.fullmatch(text)],
            [token for token, text in enumerate(bare) if _NO_END_AFTER.fullmatch(text)],
            [token for token, text in enumerate(bare) if "?" in text],
            [token for token, text in enumerate(bare) if _QUESTION.fullmatch(text)],
        )
        return cls(*(torch.tensor(list(ids), dtype=torch.long) for ids in groups))

    def to(self, device: torch.device) -> EndTokens:
        """The same on a device."""
        each = (self.ends, self.closing, self.unclosed, self.asking, self.questions)
        return EndTokens(*(ids.to(device) for ids in each))


class EndSearch:
    """Rates the ends of a batch of sentences while they are decoded.

    Args:
        lengths: Wanted lengths (B,) in tokens, without the end token; at least 1.
        tokens: How ends are recognized; on the device of `lengths`.
    """

    def __init__(self, lengths: Tensor, tokens: EndTokens) -> None:
        self._lengths = lengths.float()
        self._tolerance = (self._lengths * _TOLERANCE).clamp_min(1.0)
        self._tokens = tokens
        self._best = torch.full_like(self._lengths, -torch.inf)
        self._at = torch.zeros_like(lengths)
        self._mark = torch.full_like(lengths, -1)

    @cached_property
    def _ids(self) -> Tensor:
        return torch.cat([self._tokens.ends, self._tokens.closing])

    def look(
        self, logits: Tensor, rows: Tensor, step: int, last: Tensor | None, alive: Tensor
    ) -> None:
        """Rate an end after `step` tokens, and hold it back where that is too early.

        Args:
            logits: Of the next tokens (b, V); those of ends are changed in place.
            rows: Which sentences they belong to (b,).
            step: How many tokens these sentences have.
            last: The last of these tokens (b,); None if there is none.
            alive: Which of them are not finished (b,).
        """
        cost = self._cost(rows, step)
        if last is not None:
            self._rate(logits, rows, step, last, cost, alive)
        early = (step < self._lengths[rows]) * cost.clamp_max(_MOST_HELD)
        logits[:, self._ids] -= early[:, None].to(logits.dtype)

    def over(self, rows: Tensor, step: int) -> Tensor:
        """Which of `rows` (b,) have an end that none after more than `step` tokens can beat."""
        late = step >= self._lengths[rows]
        over: Tensor = late & (-self._cost(rows, step + 1) <= self._best[rows])
        return over

    def cut(self, row: int, tokens: Sequence[int]) -> list[int]:
        """The tokens of a sentence up to its best end."""
        at, mark = int(self._at[row]), int(self._mark[row])
        if not at:
            return list(tokens)
        return [*tokens[:at], *([mark] if mark >= 0 else [])]

    def _rate(
        self, logits: Tensor, rows: Tensor, step: int, last: Tensor, cost: Tensor, alive: Tensor
    ) -> None:
        values = logits[:, self._ids].float()
        split = len(self._tokens.ends)
        unclosed = torch.isin(last, self._tokens.unclosed)
        values[:, split:] = values[:, split:].masked_fill(unclosed[:, None], -torch.inf)
        total = logits.topk(min(_LIKELIEST, logits.shape[-1]), dim=-1).values.float().logsumexp(-1)
        rating = values.logsumexp(-1) - total - cost
        better = alive & (rating > self._best[rows])
        chosen = rows[better]
        self._best[chosen] = rating[better]
        self._at[chosen] = step
        likeliest = values[better].max(-1).indices
        self._mark[chosen] = torch.where(likeliest < split, -1, self._ids[likeliest])

    def _cost(self, rows: Tensor, step: int) -> Tensor:
        away = (step - self._lengths[rows]) / self._tolerance[rows]
        return torch.where(away < 0, -away * _EARLY, away * _LATE)
