"""Fidelity: how well sentences survive the round trip, and whether mixes keep their ratio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import errors
from mixup_hf.evaluation import text_scores
from mixup_hf.evaluation.ratio_recovery import (
    cross_topic_pairs,
    lam_recovery,
    recovered_lam,
    recovered_lam_linear,
)
from mixup_hf.intervals import Interval, bootstrap_interval, mean_over
from mixup_hf.mixing.interpolation import linear
from mixup_hf.runtime import counter_rng

_LAMS = (0.0, 0.25, 0.5, 0.75, 1.0)
_MIDDLE = (0.25, 0.5, 0.75)
_LENGTHS = ((1, 7), (8, 12), (13, 20), (21, 1_000))  # buckets, in words


class RoundTrip(Protocol):
    """An object that encodes texts and inverts embeddings."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts."""
        ...

    def mix_weights(self, lams: Tensor) -> Tensor:
        """Convert mixing ratios to embedding weights."""
        ...

    def invert(
        self,
        embeddings: Tensor,
        *,
        temperature: float,
        num_candidates: int = 1,
        seed: int | Sequence[int] = 0,
    ) -> list[str]:
        """Decode embeddings."""
        ...


@dataclass(frozen=True)
class Fidelity:
    """Results of `measure_fidelity`.

    Attributes:
        sentences: Number of sentences in the round trip.
        num_candidates: Number of decodes the best is chosen from; 1 means greedy decoding.
        corrections: How often the closest decode was corrected at most.
        close_enough: Cosine at which a sentence was not decoded again; None if there was none.
        rate: Sentences decoded per second in the round trip, those embedded again included. Not
            compared: two measurements of the same are equal.
        overall: `cosine`, `token_f1`, `word_f1`, `rouge_l` (0 to 1) and `bleu` (0 to 100) of the
            round trip.
        by_length: The same metrics by sentence length in words, with the `count` of sentences.
        by_origin: The same metrics by origin; empty if no origins were given.
        control: Lambda recovery over cross-topic pairs: `slope`, `r2`, `spearman`, the slope
            computed with the literal distance to linear mixes (`slope_linear`), and `mix_cosine`,
            the cosine of a decoded mix to its target at lambda 0.25 to 0.75.
        distinct: Fraction of distinct sentences among `num_mixes` mixes sampled at temperature 0.7.
        recovered: Pairs of requested and recovered lambda, for plotting.
        samples: Pairs of a sentence and its reconstruction.
        sweeps: For a few pairs, both parents and the sentences decoded from lambda 0 to 1.
    """

    sentences: int
    num_candidates: int
    corrections: int
    close_enough: float | None
    rate: float = field(compare=False)
    overall: dict[str, Interval]
    by_length: dict[str, dict[str, float]]
    by_origin: dict[str, dict[str, float]]
    control: dict[str, Interval]
    distinct: float
    recovered: list[tuple[float, float]]
    samples: list[tuple[str, str]]
    sweeps: list[dict[str, Any]]


def measure_fidelity(
    inverter: RoundTrip,
    sentences: Sequence[str],
    *,
    origins: Sequence[str] | None = None,
    num_pairs: int = 60,
    num_candidates: int = 1,
    corrections: int = 0,
    close_enough: float | None = None,
    num_mixes: int = 200,
    seed: int = 0,
) -> Fidelity:
    """Measure how well an inverter decodes sentences and mixes of them.

    Args:
        inverter: An `Inverter`.
        sentences: Texts it was not trained on (N).
        origins: Where each sentence comes from (N,), to group the results by.
        num_pairs: Number of cross-topic pairs for lambda recovery, each decoded at five ratios.
        num_candidates: 1 decodes greedily; a larger value samples that many and keeps the closest.
        corrections: How often the closest sentence is corrected; see `DecodeSettings`.
        close_enough: Cosine at which a sentence is not decoded again.
        num_mixes: Number of mixes to sample when measuring the fraction of distinct sentences.
        seed: Seed for the pairs and the sampling.

    Raises:
        ValueError: Fewer than two sentences, or `origins` has a different length.
    """
    errors.texts("sentences", sentences)
    errors.at_least("sentences", len(sentences), 2)
    errors.at_least("num_pairs", num_pairs, 2)
    errors.at_least("num_mixes", num_mixes, 1)
    if origins is not None and len(origins) != len(sentences):
        raise errors.bad("origins", f"name one of each of {len(sentences)}", len(origins))
    decoding = _decoding(num_candidates, corrections, close_enough, seed)
    embeddings = inverter.encode(sentences)
    start = perf_counter()
    decoded = inverter.invert(embeddings, **decoding)
    rate = len(sentences) / (perf_counter() - start)
    scores = _Scores(inverter.encode(decoded), embeddings, decoded, sentences)
    pairs = cross_topic_pairs(embeddings, num_pairs, counter_rng(seed))
    control = _Control(inverter, embeddings, pairs, decoding)
    return Fidelity(
        sentences=len(sentences),
        num_candidates=num_candidates,
        corrections=corrections,
        close_enough=close_enough,
        rate=rate,
        overall=scores.with_intervals(seed),
        by_length=scores.grouped(_length_names(sentences)),
        by_origin=scores.grouped(origins) if origins is not None else {},
        control=control.with_intervals(seed),
        distinct=_distinct(inverter, embeddings, num_mixes, seed),
        recovered=control.points(),
        samples=list(zip(sentences[:12], decoded[:12], strict=True)),
        sweeps=control.sweeps(sentences, 4),
    )


def mean_cosine(first: Tensor, second: Tensor) -> float:
    """Mean cosine between the rows of two (N, D) tensors."""
    return float(F.cosine_similarity(first, second, dim=-1).mean())


class _Scores:
    """Round-trip scores per row."""

    def __init__(
        self,
        returned: Tensor,
        embeddings: Tensor,
        decoded: Sequence[str],
        sentences: Sequence[str],
    ) -> None:
        self.decoded, self.sentences = np.array(decoded), np.array(sentences)
        pairs = list(zip(decoded, sentences, strict=True))
        self.rows = {
            "cosine": F.cosine_similarity(returned, embeddings, dim=-1).numpy(),
            "token_f1": np.array([text_scores.token_f1(*pair) for pair in pairs]),
            "word_f1": np.array([text_scores.word_f1(*pair) for pair in pairs]),
            "rouge_l": np.array([text_scores.rouge_l(*pair) for pair in pairs]),
        }

    def bleu(self, rows: np.ndarray) -> float:
        return text_scores.bleu(self.decoded[rows].tolist(), self.sentences[rows].tolist())

    def with_intervals(self, seed: int) -> dict[str, Interval]:
        count = len(self.sentences)
        figures = {name: mean_over(values) for name, values in self.rows.items()}
        figures["bleu"] = self.bleu
        return {name: bootstrap_interval(figure, count, seed) for name, figure in figures.items()}

    def grouped(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        found = np.array(names)
        return {str(name): self._group(np.flatnonzero(found == name)) for name in np.unique(found)}

    def _group(self, rows: np.ndarray) -> dict[str, float]:
        means = {name: float(values[rows].mean()) for name, values in self.rows.items()}
        return {"count": float(len(rows)), **means, "bleu": self.bleu(rows)}


class _Control:
    """Decodes every pair at five ratios and recovers the ratios from the decoded sentences."""

    def __init__(
        self, inverter: RoundTrip, embeddings: Tensor, pairs: np.ndarray, decoding: dict[str, Any]
    ) -> None:
        self.pairs = pairs
        self.asked = np.tile(np.array(_LAMS), (len(pairs), 1))
        rows = torch.from_numpy(pairs).repeat_interleave(len(_LAMS), dim=0)
        first, second = embeddings[rows[:, 0]], embeddings[rows[:, 1]]
        lams = torch.from_numpy(self.asked.ravel()).float()
        targets = linear(first, second, lams)
        self.decoded = inverter.invert(
            linear(first, second, inverter.mix_weights(lams)), **decoding
        )
        landed = inverter.encode(self.decoded)
        shape = self.asked.shape
        self.cosine = F.cosine_similarity(landed, targets, dim=-1).numpy().reshape(shape)
        self.found = recovered_lam(landed, first, second).numpy().reshape(shape)
        self.linear = recovered_lam_linear(landed, first, second).numpy().reshape(shape)

    def with_intervals(self, seed: int) -> dict[str, Interval]:
        """Bootstrap over pairs, because the five decodes of a pair are not independent."""
        count = len(self.pairs)
        middle = np.isin(_LAMS, _MIDDLE)

        def recovery(name: str, found: np.ndarray) -> Callable[[np.ndarray], float]:
            return lambda rows: lam_recovery(self.asked[rows].ravel(), found[rows].ravel())[name]

        figures = {name: recovery(name, self.found) for name in ("slope", "r2", "spearman")}
        figures["slope_linear"] = recovery("slope", self.linear)
        figures["mix_cosine"] = lambda rows: float(self.cosine[rows][:, middle].mean())
        return {name: bootstrap_interval(figure, count, seed) for name, figure in figures.items()}

    def points(self) -> list[tuple[float, float]]:
        return list(zip(self.asked.ravel().tolist(), self.found.ravel().tolist(), strict=True))

    def sweeps(self, sentences: Sequence[str], count: int) -> list[dict[str, Any]]:
        width = len(_LAMS)
        return [
            {
                "first": sentences[first],
                "second": sentences[second],
                "lams": list(_LAMS),
                "sentences": self.decoded[row * width : (row + 1) * width],
            }
            for row, (first, second) in enumerate(self.pairs[:count].tolist())
        ]


def _decoding(
    num_candidates: int, corrections: int, close_enough: float | None, seed: int
) -> dict[str, Any]:
    errors.at_least("num_candidates", num_candidates, 1)
    found: dict[str, Any] = {"temperature": 0.0}
    if num_candidates > 1:
        found = {"temperature": 0.7, "num_candidates": num_candidates, "seed": seed}
    if corrections:
        found["corrections"] = corrections
    if close_enough is not None:
        found["close_enough"] = close_enough
    return found


def _distinct(inverter: RoundTrip, embeddings: Tensor, count: int, seed: int) -> float:
    rng = counter_rng(seed, 1)
    pairs = torch.from_numpy(
        np.stack([rng.choice(len(embeddings), size=2, replace=False) for _ in range(count)])
    )
    lams = torch.from_numpy(rng.random(count)).float()
    weights = inverter.mix_weights(lams)
    mixes = linear(embeddings[pairs[:, 0]], embeddings[pairs[:, 1]], weights)
    sentences = inverter.invert(mixes, temperature=0.7, seed=seed)
    return len({sentence.casefold() for sentence in sentences}) / count


def _length_names(sentences: Sequence[str]) -> list[str]:
    names = []
    for sentence in sentences:
        words = len(sentence.split())
        low, high = next((low, high) for low, high in _LENGTHS if words <= high)
        names.append(f"{low:02d}-{high:02d} words" if high < 1_000 else f"{low}+ words")
    return names
