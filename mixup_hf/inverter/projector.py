"""The projector (the paper's *adaptor*): one embedding in, K soft tokens out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Projector(nn.Module):
    """Two-layer MLP from the encoder's space into the LLM's input-embedding space.

    `A_phi: R^D -> R^(K x H)` of arXiv 2601.21543. Every soft token is brought to the root mean
    square of the LLM's own embedding table, times a learned factor that starts at 1: the LLM then
    sees vectors of the size it was trained on from the first step.

    Args:
        embedding_dim: D, width of the encoder's embeddings.
        llm_dim: H, width of the LLM's input embeddings.
        num_soft_tokens: K.
        width: Width of the hidden layer.
        embedding_rms: Root mean square of the entries of the LLM's embedding table.
    """

    def __init__(
        self,
        embedding_dim: int,
        llm_dim: int,
        num_soft_tokens: int,
        width: int,
        embedding_rms: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_soft_tokens = num_soft_tokens
        self.llm_dim = llm_dim
        self.up = nn.Linear(embedding_dim, width)
        self.down = nn.Linear(width, num_soft_tokens * llm_dim)
        self.gain = nn.Parameter(torch.ones(num_soft_tokens, 1))
        self.embedding_rms = embedding_rms

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (B, D) to soft tokens (B, K, H), in float32."""
        tokens = self.down(F.gelu(self.up(embeddings)))
        tokens = tokens.view(-1, self.num_soft_tokens, self.llm_dim).float()
        return F.rms_norm(tokens, (self.llm_dim,), eps=1e-6) * self.gain * self.embedding_rms
