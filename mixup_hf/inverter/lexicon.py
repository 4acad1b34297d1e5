"""Lexical hints: the words an embedding speaks of, offered to the LLM as tokens it already knows.

A small LLM needs very many sentences to learn from soft tokens alone which words an embedding
stands for. A bag-of-words network learns that much from the same embeddings far sooner. So the
prompt opens with the M words this network finds most likely, as the LLM's own token
embeddings, and the soft tokens that follow carry what a list of words cannot: order, form, tone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixup_hf import errors


class Lexicon(nn.Module):
    """Which of V' words occur in a sentence, from its embedding.

    A two-layer network with a low-rank output, trained with a softmax over words against the words
    of the sentence. The length of an embedding does not matter, only its direction: a mix is read
    as a sentence is.

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
        """Name the words, before training.

        Args:
            token_ids: The LLM's token ids (V',).
            sentence_counts: In how many sentences each occurs (V',); the first guess.
            num_common: That many of the most frequent are never hints: articles and commas fill the
                list and tell the LLM nothing.
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

    def best(self, embeddings: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` most likely words but the common ones, likeliest first.

        Returns:
            Log probabilities (B, count), and indices (B, count) into the V' words.
        """
        scores = self(embeddings).masked_fill(self.common, -torch.inf)
        values, words = scores.topk(count, dim=-1)
        return values, words


class HintTokens(nn.Module):
    """Embeddings to M hint tokens in the LLM's input space.

    A hint is the LLM's own embedding of a word, plus a learned vector for its rank in the list, and
    one that tells how sure the lexicon is: both start at zero, so the LLM first sees a plain list
    of words.

    Args:
        lexicon: Finds the words; frozen while the LLM learns to read hints.
        llm_dim: H.
        num_hints: M.
        embedding_rms: Root mean square of the LLM's embedding table, the unit of both vectors.
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

    def forward(self, embeddings: Tensor, words: Tensor) -> Tensor:
        """Hint tokens (B, M, H), float32.

        Args:
            embeddings: (B, D).
            words: The LLM's embeddings of the lexicon's words (V', H).
        """
        with torch.no_grad():
            log_probabilities, indices = self.lexicon.best(embeddings, self.num_hints)
            hints = words[indices].float()
        sureness = (log_probabilities + _TYPICAL_LOG_PROBABILITY)[..., None] * self.confidence
        return hints + (sureness + self.order) * self.embedding_rms


# Centres the sureness: a hint in the middle of the list has about this probability, as -log.
_TYPICAL_LOG_PROBABILITY = 4.0
