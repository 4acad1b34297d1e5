"""Two texts decoded in every ratio at once, so that a slider can show any of them at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch.nn import functional as F

from mixup_hf import errors
from mixup_hf.evaluation.ratio_recovery import recovered_lam
from mixup_hf.inverter.decoding import lengths_between
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.inverter.lexicon import hint_words
from mixup_hf.inverter.model import Inverter
from mixup_hf.inverter.parent_words import Hints
from mixup_hf.mixing.interpolation import linear


@dataclass(frozen=True)
class Candidate:
    """One sentence decoded from a mix.

    Attributes:
        text: The sentence.
        closeness: Cosine of the mix and the sentence's own embedding.
        found: λ of the mix that the sentence, embedded again, is closest to.
    """

    text: str
    closeness: float
    found: float


@dataclass(frozen=True)
class Stop:
    """One ratio of a sweep.

    Attributes:
        lam: Weight of the first text.
        candidates: The sentences decoded.
        chosen: Which of them is kept: the one closest to the mix.
        hints: The words that the LLM was given; empty for an aligner without a lexicon.
    """

    lam: float
    candidates: tuple[Candidate, ...]
    chosen: int
    hints: tuple[str, ...]

    @property
    def best(self) -> Candidate:
        """The sentence that is kept."""
        return self.candidates[self.chosen]


@dataclass(frozen=True)
class Sweep:
    """Everything between two texts.

    Attributes:
        first: The text at λ = 1.
        second: The text at λ = 0.
        stops: The ratios, from 0 to 1.
    """

    first: str
    second: str
    stops: tuple[Stop, ...]

    @property
    def texts(self) -> list[str]:
        """The sentence kept at each ratio."""
        return [stop.best.text for stop in self.stops]


def sweep(
    inverter: Inverter,
    first: str,
    second: str,
    settings: DecodeSettings,
    *,
    hints: Hints = "embedding",
    match_length: bool = False,
    num_stops: int = 11,
    seed: int = 0,
) -> Sweep:
    """Decode two texts in evenly spaced ratios, all candidates of all ratios in one batch.

    Args:
        inverter: Encodes the texts and decodes their mixes.
        first: The text at λ = 1.
        second: The text at λ = 0.
        settings: How to sample; `num_candidates` sentences for each ratio.
        hints: Whether hints come from the mixed embedding alone, or from both texts too.
        match_length: Whether sentences are about as long as the two texts.
        num_stops: How many ratios, 0 and 1 included.
        seed: Seed of the sampling.

    Raises:
        InvalidInput: A text is empty, fewer than two ratios, or a decoding setting out of range.
    """
    errors.at_least("num_stops", num_stops, 2)
    errors.texts("texts", [first, second])
    ends = inverter.encode([first, second])
    lams = torch.linspace(0, 1, num_stops)
    weights = inverter.mix_weights(lams)
    mixes = linear(ends[:1].expand(num_stops, -1), ends[1:].expand(num_stops, -1), weights)
    count = settings.num_candidates
    how = asdict(settings) | {"num_candidates": 1}
    if match_length:
        how["lengths"] = lengths_between(inverter, first, second, lams.tolist()) * count
    if hints == "parents":
        how["parents"] = [((first, lam), (second, 1 - lam)) for lam in lams.tolist()] * count
    sentences = inverter.invert(mixes.repeat(count, 1), seed=seed, progress=False, **how)
    embedded = inverter.encode(sentences)
    closeness = F.cosine_similarity(embedded, mixes.cpu().repeat(count, 1)).tolist()
    found = recovered_lam(embedded, ends[:1], ends[1:]).tolist()
    every = [Candidate(*parts) for parts in zip(sentences, closeness, found, strict=True)]
    hinted = hint_words(inverter.aligner.hints, inverter.tokenizer, mixes)
    stops = [
        _stop(lam, every[place::num_stops], words)
        for place, (lam, words) in enumerate(zip(lams.tolist(), hinted, strict=True))
    ]
    return Sweep(first, second, tuple(stops))


def _stop(lam: float, candidates: list[Candidate], hints: list[str]) -> Stop:
    chosen = max(range(len(candidates)), key=lambda place: candidates[place].closeness)
    return Stop(round(lam, 6), tuple(candidates), chosen, tuple(hints))
