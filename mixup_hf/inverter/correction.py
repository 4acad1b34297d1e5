"""Decoding that tries again, without training: of all attempts, the closest sentence is kept.

A sentence is close when it lands near its embedding once it is embedded again. Attempts are samples
of the same embedding (`num_candidates`), then corrections (`corrections`): a share of what the
closest sentence so far lacks is added to the target it was decoded from, and the moved target is
decoded. Where that gives another sentence which is no closer, the share is halved; where it gives
the same sentence, the next correction goes on from the moved target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf.inverter.engines.base import DecodeSettings

# Of what is missing, at first; recipes/benchmarks/RESULTS.md compares shares.
_SHARE = 0.2


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
        moved = closest.moved(rows) if turn >= samples else None
        closest.take(rows, attempt(turn, rows, moved), moved)
        if settings.close_enough is not None:
            rows = [row for row in rows if closest.cosines[row] < settings.close_enough]
    return closest.texts


class _Closest:
    """The closest sentence of each row so far.

    Attributes:
        texts: The sentences (B).
        cosines: Of each sentence and its embedding (B,).
    """

    def __init__(self, encode: Callable[[Sequence[str]], Tensor], embeddings: Tensor) -> None:
        self._encode, self._embeddings = encode, embeddings
        # Lengths are not compared: a mix is shorter than the embedding of any sentence.
        self._wanted = F.normalize(embeddings.float(), dim=-1)
        self._targets = self._wanted.clone()  # what the closest sentences were decoded from
        self._landed = torch.zeros_like(self._wanted)
        self._shares = torch.full((len(embeddings), 1), _SHARE)
        self.texts = [""] * len(embeddings)
        self.cosines = torch.full((len(embeddings),), -torch.inf)

    def moved(self, rows: list[int]) -> Tensor:
        """Targets (n, D), as long as the embeddings, moved by a share of what is missing."""
        lacking = self._wanted[rows] - self._landed[rows]
        target = F.normalize(self._targets[rows] + self._shares[rows] * lacking, dim=-1)
        lengths: Tensor = self._embeddings[rows].float().norm(dim=-1, keepdim=True)
        return target * lengths

    def take(self, rows: list[int], texts: Sequence[str], moved: Tensor | None) -> None:
        """Keep those of n sentences that are closer than their rows' so far.

        Args:
            rows: Their rows (n).
            texts: The sentences (n).
            moved: The targets (n, D) they were decoded from; None for the embeddings themselves.
        """
        landed = self._encode(texts).float()
        cosines = F.cosine_similarity(landed, self._embeddings[rows])
        better = (cosines > self.cosines[rows]).tolist()
        for place, row in enumerate(rows):
            again = texts[place] == self.texts[row]
            if better[place]:
                self.texts[row], self.cosines[row] = texts[place], cosines[place]
                self._landed[row] = F.normalize(landed[place], dim=-1)
            elif moved is not None and not again:
                self._shares[row] *= 0.5
            if moved is not None and (better[place] or again):
                self._targets[row] = F.normalize(moved[place], dim=-1)
