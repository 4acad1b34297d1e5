"""Lexical hints: words predicted from an embedding, given to the LLM as ordinary tokens.

A small LLM needs a large number of sentences to learn from soft tokens alone which words an
embedding encodes. A bag-of-words network learns this from the same embeddings much faster. The
prompt therefore starts with the M words this network predicts as most likely, as the LLM's own
token embeddings. The soft tokens that follow carry what a word list cannot: order, form, tone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixup_hf import errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Lexicon(nn.Module):
    """Predicts which of V' words occur in a sentence from its embedding.

    A two-layer network with a low-rank output, trained with a softmax over words against the words
    of the sentence. Only the direction of an embedding matters, not its norm, so mixes are handled
    in the same way as sentences.

    Args:
        embedding_dim: D.
        num_words: V'.
        width: Width of the hidden layer.
        rank: Rank of the output layer.
    """

    token_ids: Tensor
    common: Tensor

    def __init__(self, embedding_dim: int, num_words: int, width: int, rank: int) -> None:
        super().__init__()
        self.up = nn.Linear(embedding_dim, width)
        self.down = nn.Linear(width, rank)
        self.words = nn.Linear(rank, num_words)
        nn.init.normal_(self.words.weight, std=0.02)
        self.register_buffer("token_ids", torch.zeros(num_words, dtype=torch.long))
        self.register_buffer("common", torch.zeros(num_words, dtype=torch.bool))

    def set_words(self, token_ids: Tensor, sentence_counts: Tensor, num_common: int) -> None:
        """Set the vocabulary; call this before training.

        Args:
            token_ids: The LLM's token ids (V',).
            sentence_counts: Number of sentences each occurs in (V',); initializes the output bias.
            num_common: How many of the most frequent words to exclude from the hints: articles and
                commas would fill the list without telling the LLM anything.
        """
        if len(token_ids) != len(self.token_ids):
            raise errors.bad("token_ids", f"name {len(self.token_ids)} words", len(token_ids))
        self.token_ids.copy_(token_ids)
        share = sentence_counts.double() / sentence_counts.sum()
        with torch.no_grad():
            self.words.bias.copy_(share.clamp_min(1e-9).log())
        self.common.zero_()
        self.common[sentence_counts.argsort(descending=True)[:num_common]] = True

    def forward(self, embeddings: Tensor) -> Tensor:
        """Log probabilities (B, V') over the words, float32, for embeddings (B, D)."""
        directions = F.rms_norm(embeddings.float(), embeddings.shape[-1:])
        scores: Tensor = self.words(self.down(F.gelu(self.up(directions))))
        return scores.float().log_softmax(-1)

    def log_shares(self) -> Tensor:
        """How frequent each word is: log probabilities (V',), as the output bias has them."""
        return self.words.bias.float().log_softmax(-1)

    def best(
        self, embeddings: Tensor, count: int, preferred: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the `count` most likely words, excluding the common ones, most likely first.

        Args:
            embeddings: (B, D).
            count: How many.
            preferred: Nats (B, V') by which words are moved up; one that is, may be a common word.

        Returns:
            Log probabilities (B, count), and indices (B, count) into the V' words.
        """
        log_probabilities: Tensor = self(embeddings)
        if preferred is None:
            words = log_probabilities.masked_fill(self.common, -torch.inf).topk(count)[1]
            # Where a small lexicon has too few rare words, common ones fill the list: not -inf.
            return log_probabilities.gather(-1, words), words
        preferred = preferred.to(log_probabilities.device)
        unwanted = self.common & (preferred <= 0)
        words = (log_probabilities + preferred).masked_fill(unwanted, -torch.inf).topk(count)[1]
        return log_probabilities.gather(-1, words).clamp_min(_LEAST_LOG_PROBABILITY), words


class HintTokens(nn.Module):
    """Maps embeddings to M hint tokens in the LLM's input space.

    A hint is the LLM's own embedding of a word, plus a learned vector for its rank in the list and
    another that encodes the lexicon's confidence. Both start at zero, so the LLM initially sees a
    plain list of words.

    Args:
        lexicon: Selects the words; frozen while the LLM learns to use the hints.
        llm_dim: H.
        num_hints: M.
        embedding_rms: Root mean square of the LLM's embedding table; scales both vectors.
    """

    def __init__(
        self, lexicon: Lexicon, llm_dim: int, num_hints: int, embedding_rms: float
    ) -> None:
        super().__init__()
        self.lexicon = lexicon
        self.num_hints = num_hints
        self.embedding_rms = embedding_rms
        self.confidence = nn.Parameter(torch.zeros(llm_dim))
        self.order = nn.Parameter(torch.zeros(num_hints, llm_dim))

    def forward(self, embeddings: Tensor, words: Tensor, preferred: Tensor | None = None) -> Tensor:
        """Hint tokens (B, M, H), float32.

        Args:
            embeddings: (B, D).
            words: The LLM's embeddings of the lexicon's words (V', H).
            preferred: How far each word is preferred (B, V'), in nats; see `Lexicon.best`.
        """
        with torch.no_grad():
            log_probabilities, indices = self.lexicon.best(embeddings, self.num_hints, preferred)
            hints = words[indices].float()
        sureness = (log_probabilities + _TYPICAL_LOG_PROBABILITY)[..., None] * self.confidence
        return hints + (sureness + self.order) * self.embedding_rms


# Least of a preferred word: in training the LLM has seen no hint that is less likely.
_LEAST_LOG_PROBABILITY = -9.0
# Centers the confidence: the typical -log probability of a hint in the middle of the list.
_TYPICAL_LOG_PROBABILITY = 4.0


@torch.no_grad()
def hint_words(
    hints: HintTokens | None, tokenizer: PreTrainedTokenizerBase, embeddings: Tensor
) -> list[list[str]]:
    """The hints as text: the words that the LLM is given for embeddings (B, D).

    Args:
        hints: An aligner's hint tokens; None for an aligner without a lexicon.
        tokenizer: The LLM's tokenizer.
        embeddings: (B, D), on any device.

    Returns:
        For each embedding its M words, most likely first, without white space around them; B empty
        lists without a lexicon.
    """
    if hints is None:
        return [[] for _ in range(len(embeddings))]
    lexicon = hints.lexicon
    places = lexicon.best(embeddings.to(lexicon.token_ids.device), hints.num_hints)[1]
    return [
        [str(tokenizer.decode([token])).strip() for token in tokens]
        for tokens in lexicon.token_ids[places].tolist()
    ]
