"""Text quality: generated rows measured beside the real rows they were made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import errors, runtime
from mixup_hf.evaluation.ratio_recovery import lam_recovery, recovered_lam
from mixup_hf.evaluation.text_scores import copied_share, matched_variety, self_bleu
from mixup_hf.intervals import Interval, bootstrap_interval, mean_over
from mixup_hf.judging.judges.classifier import ClassifierJudge
from mixup_hf.mixing.interpolation import mix
from mixup_hf.mixing.neighbors import NOBODY
from mixup_hf.runtime import counter_rng
from mixup_hf.types import MixedExample

_MOST_COMPARED = 200  # texts in self-BLEU, which compares each with all others
_FEWEST = 20
_ORDER, _OTHERS = 12, 13  # what streams of random numbers are for; part of their keys
_APART = 0.9  # parents whose embeddings are closer than this (cosine) have no line between them

# Negative log-likelihoods (N,) of texts in nats, and how many tokens each has (N,).
LogLikelihood = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]


class Embeds(Protocol):
    """Embeds texts, and knows where mixes are asked for: an `Inverter`."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts (N): (N, D)."""
        ...

    def mix_weights(self, lams: Tensor) -> Tensor:
        """Embedding weights (N,) for ratios (N,)."""
        ...


@dataclass(frozen=True)
class Figure:
    """One figure of the generated rows, and of the real ones where it applies.

    Attributes:
        name: What is measured.
        generated: Of generated rows; without an interval where it is a count of all of them.
        real: Of real rows; None where it does not apply.
        note: How to read it.
    """

    name: str
    generated: Interval | float
    real: Interval | float | None
    note: str


def measure_quality(
    rows: Sequence[MixedExample],
    texts: Sequence[str],
    targets: Tensor,
    embedder: Embeds,
    *,
    log_likelihood: LogLikelihood | None = None,
    seed: int = 0,
) -> list[Figure]:
    """Measure generated rows.

    Args:
        rows: Generated from `texts` (M).
        texts: The training texts (N).
        targets: Their one-hot labels (N, C).
        embedder: The inverter that made them, or one with the same encoder.
        log_likelihood: Of a language model, for the perplexity; None leaves it out.
        seed: Of intervals, folds and of which rows are compared.

    Raises:
        ValueError: Fewer than 20 rows, or than 20 texts.
    """
    for name, count in (("rows", len(rows)), ("texts", len(texts))):
        errors.at_least(name, count, _FEWEST, "Fewer are not enough to measure.")
    made = [row.text for row in rows]
    real_at = sorted({parent for row in rows for parent in row.parents})
    counter_rng(seed, _ORDER).shuffle(real_at)  # so that the first words are those of any row
    real = [texts[at] for at in real_at]
    embeddings, landed = embedder.encode(texts), embedder.encode(made)
    figures = [
        *_variety(made, real, seed),
        _copied(rows, texts, seed),
        *_control(rows, embeddings, landed, embedder, seed),
        *_two_sample(landed, embeddings[real_at], seed),
        *_agreement(rows, targets, embeddings, landed, seed),
    ]
    if log_likelihood is not None:
        figures.append(_perplexity(log_likelihood, made, real, seed))
    return figures


def _variety(made: Sequence[str], real: Sequence[str], seed: int) -> list[Figure]:
    ours, theirs = matched_variety(made, real)
    lengths = [np.array([len(text.split()) for text in each]) for each in (made, real)]
    words = [bootstrap_interval(mean_over(each), len(each), seed) for each in lengths]
    same = f"On {ours.words} words of each."
    count = min(len(made), len(real), _MOST_COMPARED)
    longest = max(1, round(min(ours.mean_words, theirs.mean_words)))
    rng = counter_rng(seed)
    alike = [
        self_bleu([each[at] for at in rng.choice(len(each), count, replace=False)], longest)
        for each in (made, real)
    ]
    note = (
        f"{count} texts of each, their first {longest} words: overlap of one text with the others."
    )
    return [
        Figure("words", words[0], words[1], "Mean length."),
        Figure("unique share", ours.unique, theirs.unique, "Share of distinct texts."),
        Figure("distinct words", ours.distinct_1, theirs.distinct_1, same),
        Figure("distinct bigrams", ours.distinct_2, theirs.distinct_2, same),
        Figure("self-BLEU", alike[0], alike[1], note),
    ]


def _copied(rows: Sequence[MixedExample], texts: Sequence[str], seed: int) -> Figure:
    shares = np.array([copied_share(row.text, [texts[at] for at in row.parents]) for row in rows])
    found = bootstrap_interval(mean_over(shares), len(shares), seed)
    return Figure(
        "copied", found, None, "Longest run of words shared with a parent, as a share of all words."
    )


def _control(
    rows: Sequence[MixedExample], embeddings: Tensor, landed: Tensor, embedder: Embeds, seed: int
) -> list[Figure]:
    """Whether sentences lie where their mixes lay; measured on mixes of two rows only."""
    mixed = [at for at, row in enumerate(rows) if _is_mix_of_two(row)]
    if len(mixed) < _FEWEST:
        return []
    asked = torch.tensor([rows[at].lam for at in mixed])
    ends = embeddings[torch.tensor([rows[at].parents for at in mixed])]
    weights = embedder.mix_weights(asked)
    shares = torch.stack([weights, 1 - weights], 1)
    how = [rows[at].interpolation or "linear" for at in mixed]  # older rows do not say
    targets = torch.cat([mix(ends[[at]], shares[[at]], each) for at, each in enumerate(how)])
    near = F.cosine_similarity(landed[mixed], targets, dim=-1).numpy()
    figures = [
        Figure(
            "cosine to the mix",
            bootstrap_interval(mean_over(near), len(near), seed),
            None,
            "Cosine of the sentence's embedding to the embedding it was decoded from.",
        )
    ]
    apart = F.cosine_similarity(ends[:, 0], ends[:, 1], dim=-1) < _APART
    apart &= (asked >= 0) & (asked <= 1)  # what is recovered lies between the parents
    wanted = asked[apart].numpy()
    if len(np.unique(wanted)) < _FEWEST:
        return figures
    found = recovered_lam(landed[mixed][apart], ends[apart, 0], ends[apart, 1]).numpy()

    def recovery(name: str) -> Callable[[np.ndarray], float]:
        return lambda at: lam_recovery(wanted[at], found[at])[name]

    notes = {"slope": "Ideal: 1.", "r2": "Of the line.", "spearman": "Rank correlation."}
    return figures + [
        Figure(
            f"lambda-recovery: {name}",
            bootstrap_interval(recovery(name), len(wanted), seed),
            None,
            f"Recovered against requested ratio. {note}",
        )
        for name, note in notes.items()
    ]


def _is_mix_of_two(row: MixedExample) -> bool:
    distinct = len(row.parents) == 2 and row.parents[0] != row.parents[1]
    return distinct and not row.is_copy


def _two_sample(made: Tensor, real: Tensor, seed: int) -> list[Figure]:
    """Classifier two-sample test (Lopez-Paz & Oquab 2017) on embeddings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng, count = counter_rng(seed), min(len(made), len(real))
    if count < _FEWEST:
        return []
    some = [each[rng.choice(len(each), count, replace=False)].numpy() for each in (made, real)]
    inputs, truth = np.concatenate(some), np.repeat([1, 0], count)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    guessed = cross_val_predict(LogisticRegression(C=10.0, max_iter=500), inputs, truth, cv=folds)
    right = (guessed == truth).astype(float)
    found = bootstrap_interval(mean_over(right), len(right), seed)
    note = (
        "Accuracy of a classifier that tells generated from real rows by their embeddings, out of "
        "fold; 0.5 is chance. Far below it, most rows have a near copy on the other side."
    )
    return [Figure("C2ST accuracy", found, 0.5, note)]


def _agreement(
    rows: Sequence[MixedExample], targets: Tensor, embeddings: Tensor, landed: Tensor, seed: int
) -> list[Figure]:
    """A classifier that has not seen a row's parents, against the row's largest class."""
    most = max(len(row.parents) for row in rows)
    parents = np.full((len(rows), most), NOBODY)
    for at, row in enumerate(rows):
        parents[at, : len(row.parents)] = row.parents
    # A real row is judged by a classifier that has seen as little: without others' folds, too.
    others = counter_rng(seed, _OTHERS).integers(len(targets), size=(len(targets), most - 1))
    own = np.concatenate([np.arange(len(targets))[:, None], others], axis=1)
    try:
        judge = ClassifierJudge(embeddings, targets, seed=seed)
        predicted = judge.judge([row.text for row in rows], landed, parents).argmax(1)
        real = judge.judge([""] * len(targets), embeddings, own).argmax(1)
    except errors.InvalidInput:
        runtime.log(
            "The label agreement is left out: a class has too few rows for a classifier that has "
            "not seen the parents, or rows have parents in every fold."
        )
        return []
    agrees = (predicted == torch.tensor([row.hard_label for row in rows])).float().numpy()
    right = (real == targets.argmax(1)).float().numpy()
    return [
        Figure(
            "label agreement",
            bootstrap_interval(mean_over(agrees), len(agrees), seed),
            bootstrap_interval(mean_over(right), len(right), seed),
            "Share whose class a classifier predicts that has not seen the parents (or the row).",
        )
    ]


def _perplexity(
    log_likelihood: LogLikelihood, made: Sequence[str], real: Sequence[str], seed: int
) -> Figure:
    def of(texts: Sequence[str]) -> Interval:
        losses, tokens = log_likelihood(texts)
        return bootstrap_interval(
            lambda rows: float(np.exp(losses[rows].sum() / tokens[rows].sum())), len(losses), seed
        )

    note = "Per token. Far below that of the real rows is as bad a sign as far above."
    return Figure("perplexity", of(made), of(real), note)
