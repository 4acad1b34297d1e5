"""Decoding that tries again, without training: of all attempts, the closest sentence is kept.

A sentence is close when it lands near its embedding once it is embedded again. Attempts are samples
of the same embedding (`num_candidates`), then corrections (`corrections`): what the best sentence
so far lacks is added to the embedding, and the moved target is decoded. Where that brings nothing,
the next correction adds half as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf.inverter.engines.base import DecodeSettings

# Share of what is missing that the first correction adds; see recipes/benchmarks/RESULTS.md.
_STEP = 0.5


class Attempt(Protocol):
    """Decodes some rows of a batch once more."""

    def __call__(self, turn: int, rows: Sequence[int], targets: Tensor | None) -> list[str]:
        """One sentence for each of n rows, sampled from streams of this turn and the row alone.

        Args:
            turn: From 0: the how-many-th attempt this is.
            rows: Places in the batch (n), ascending.
            targets: Moved targets (n, D) to decode; None for the rows' own embeddings.
        """
        ...


def decode_closest(
    attempt: Attempt,
    encode: Callable[[Sequence[str]], Tensor],
    embeddings: Tensor,
    settings: DecodeSettings,
) -> list[str]:
    """For each row the sentence closest to its embedding, of as many as the settings ask for.

    Args:
        attempt: Decodes rows.
        encode: Embeds sentences: (n, D) on the CPU.
        embeddings: (B, D).
        settings: `num_candidates`, `corrections`, and how close is `close_enough`.

    Returns:
        B sentences; of equally close ones the first.
    """
    rows = list(range(len(embeddings)))
    samples, turns = settings.num_candidates, settings.num_candidates + settings.corrections
    if turns == 1:
        return attempt(0, rows, None)  # nothing to compare: not embedded again
    closest = _Closest(encode, embeddings.cpu())
    for turn in range(turns):
        if not rows:
            break
        correcting = turn >= samples
        texts = attempt(turn, rows, closest.moved(rows) if correcting else None)
        better = closest.take(rows, texts)
        if correcting:
            closest.steps[rows] *= torch.where(better, 1.0, 0.5)
        if settings.close_enough is not None:
            rows = [row for row in rows if closest.cosines[row] < settings.close_enough]
    return closest.texts


class _Closest:
    """The closest sentence of each row so far.

    Attributes:
        texts: The sentences (B).
        cosines: Of each sentence and its embedding (B,).
        steps: Share of what is missing that the next correction adds (B,).
    """

    def __init__(self, encode: Callable[[Sequence[str]], Tensor], embeddings: Tensor) -> None:
        self._encode, self._embeddings = encode, embeddings
        self._landed = torch.zeros(embeddings.shape)
        self.texts = [""] * len(embeddings)
        self.cosines = torch.full((len(embeddings),), -torch.inf)
        self.steps = torch.full((len(embeddings),), _STEP)

    def take(self, rows: list[int], texts: Sequence[str]) -> Tensor:
        """Keep the sentences that are closer than their rows' so far; returns which (n,)."""
        landed = self._encode(texts).float()
        cosines = F.cosine_similarity(landed, self._embeddings[rows])
        better = cosines > self.cosines[rows]
        for place in better.nonzero()[:, 0].tolist():
            row = rows[place]
            self.texts[row] = texts[place]
            self._landed[row], self.cosines[row] = landed[place], cosines[place]
        return better

    def moved(self, rows: list[int]) -> Tensor:
        """Each row's embedding plus a share of what its sentence lacks, (n, D), as long as it was.

        Lengths are not compared: a mix is shorter than the embedding of any sentence.
        """
        wanted = self._embeddings[rows].float()
        given = F.normalize(wanted, dim=-1)
        lacking = given - F.normalize(self._landed[rows], dim=-1)
        target = F.normalize(given + self.steps[rows, None] * lacking, dim=-1)
        return target * wanted.norm(dim=-1, keepdim=True)
