"""Words offered in training as `hints: parents` offers them when a mix is decoded.

Half of the words that two parents have are not in the mix's sentence, and which ones fit, only the
embedding says. So a sentence is trained on with its own words preferred, and, as distractors, with
those of another sentence that its embedding knows nothing of.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors
from mixup_hf.inverter.aligner import Aligner
from mixup_hf.inverter.parent_words import STRENGTH, ParentWords

# Share of a sentence's own words, drawn evenly; the other sentence has the rest.
_LEAST_OWN_SHARE = 0.4


@dataclass(frozen=True)
class Offer:
    """What is preferred for a batch, in nats: 0 where a sentence is offered nothing.

    Attributes:
        preferred: Words of the lexicon (B, V').
        others: Tokens that are no words of the lexicon (B, V), 0 at those that are.
    """

    preferred: Tensor
    others: Tensor

    def pieces(self, vocabulary: int) -> Tensor:
        """`others` for an LLM whose output layer has `vocabulary` tokens."""
        return self.others[:, :vocabulary]


class OfferedWords:
    """Draws which sentences of a batch are offered words, and which words.

    Args:
        words: Which tokens are words of the lexicon, and which of these may be hints.
        vocabulary: V, tokens of the LLM.
        share: Fraction of sentences that are offered words.
    """

    def __init__(self, words: ParentWords, vocabulary: int, share: float) -> None:
        self.share = share
        self._vocabulary = vocabulary
        self._words, self._hintable = words.token_ids, words.hintable

    @classmethod
    def of(
        cls,
        aligner: Aligner,
        llm: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        share: float,
    ) -> OfferedWords | None:
        """For an aligner in training; None for a share of 0.

        Raises:
            InvalidInput: The aligner gives no hints.
        """
        if not share:
            return None
        if aligner.hints is None:
            raise errors.bad("offered_share", "be 0 for an aligner without hints", share)
        vocabulary = llm.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
        return cls(ParentWords.of(aligner, tokenizer), vocabulary, share)

    def __call__(self, input_ids: Tensor, targets: Tensor) -> Offer:
        """Draw for a batch.

        Args:
            input_ids: The sentences (B, T), padded.
            targets: Which of (B, T + 1) count; the last of a row that does is its end.
        """
        count, device = len(input_ids), input_ids.device
        own = torch.zeros(count, self._vocabulary, device=device)
        # A sentence has one token less than it has targets, the end among them.
        own.scatter_add_(1, input_ids, targets[:, 1:].float()).clamp_(max=1.0)
        shares = _LEAST_OWN_SHARE + (1 - _LEAST_OWN_SHARE) * torch.rand(count, 1, device=device)
        offered = STRENGTH * (shares * own + (1 - shares) * own.roll(1, 0)).clamp_(max=1.0)
        offered *= torch.rand(count, 1, device=device) < self.share
        words = self._words.to(device)
        preferred = offered[:, words] * self._hintable.to(device)
        return Offer(preferred, offered.index_fill(1, words, 0.0))
