"""Guidance: the lexicon's opinion of every word, added to the LLM's at every step.

The prompt holds the M likeliest words of a sentence, but the lexicon has an opinion of all of its
words, and the LLM forgets some of its hints. So decoding multiplies the two: a token's log
probability is raised by a share of `log P(w | h) - log P(w)`, of how much likelier the embedding
makes the word than it is anywhere, until the token has been written once. Nothing is trained. It
is what FUDGE (Yang and Klein 2021, arXiv 2104.05218) does with a classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mixup_hf.inverter.aligner import Aligner

# A word that the embedding speaks against, or for, counts up to this ratio (nats).
_LEAST, _MOST = -3.0, 8.0


@torch.inference_mode()
def favour(
    aligner: Aligner,
    llm: Any,
    embeddings: Tensor,
    preferred: Tensor | None = None,
    pieces: Callable[[int], Tensor] | None = None,
) -> Tensor | None:
    """Nats (B, V) to be added to the LLM's logits; None for an aligner that is not guided.

    Args:
        aligner: With the strength in its config, and the lexicon.
        llm: Its vocabulary V is that of the logits.
        embeddings: (B, D), on the aligner's device.
        preferred: Nats (B, V') by which words are preferred as hints; see `Lexicon.best`.
        pieces: From V, nats (B, V) by which tokens are preferred that are no words of the lexicon.
    """
    strength = aligner.config.guidance
    if not strength or aligner.hints is None:
        return None
    lexicon = aligner.hints.lexicon
    ratio: Tensor = lexicon(embeddings) - lexicon.log_shares()
    ratio = ratio.clamp(_LEAST, _MOST)
    if preferred is not None:
        ratio = ratio + preferred.to(ratio.device)
    found: Tensor = ratio.new_zeros(len(ratio), llm.get_output_embeddings().weight.shape[0])
    found[:, lexicon.token_ids] = strength * ratio
    if pieces is not None:
        found += strength * pieces(found.shape[1]).to(found.device)
    return found


class Forced:
    """Guidance at the positions of given sentences, as decoding has it: a word's share until then.

    Args:
        favour: Nats (B, V), as from `favour`.
        input_ids: The sentences (B, T).
        targets: Which positions count (B, T + 1); position t follows the first t tokens.
    """

    def __init__(self, favour: Tensor, input_ids: Tensor, targets: Tensor) -> None:
        self.favour = favour
        self.input_ids = input_ids
        self.rows, self.times = targets.nonzero(as_tuple=True)

    def __getitem__(self, positions: slice) -> Tensor:
        """Nats (n, V) to be added to the logits of n of the positions that count."""
        rows, times = self.rows[positions], self.times[positions]
        nats, words = self.favour[rows], self.input_ids[rows]
        written = torch.arange(words.shape[1], device=words.device) < times[:, None]
        shares = nats.gather(1, words)
        left = torch.where(written, shares.clamp_max(0), shares)
        # A word may occur before the position and after it: the smaller of the two is left.
        return nats.scatter_reduce(1, words, left, "amin")
