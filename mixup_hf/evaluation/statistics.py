"""Statistics of experiments: paired tests over seeds, corrected for multiple comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixup_hf import errors
from mixup_hf.intervals import discordant_p

_FEWEST = 2


def _stats() -> Any:
    return errors.optional("scipy.stats", "stats", "Comparing arms")


@dataclass(frozen=True)
class Comparison:
    """An arm compared with the baseline, over pairs of runs that differ only in the arm.

    Attributes:
        pairs: Number of pairs.
        difference: Mean difference, arm minus baseline.
        low, high: 95 % bootstrap percentile interval of the difference.
        permutation_p: Two-sided p of a permutation test that flips the signs of pairs: at best
            2 ** (1 - pairs), and never below 0.0002.
        wilcoxon_p: Two-sided p of Wilcoxon's signed-rank test.
        holm_p: `permutation_p`, corrected for all simultaneous comparisons (Holm).
    """

    pairs: int
    difference: float
    low: float
    high: float
    permutation_p: float
    wilcoxon_p: float
    holm_p: float


def compare(arm: Sequence[float], baseline: Sequence[float]) -> Comparison:
    """Compare paired values of two arms.

    Raises:
        ValueError: There are fewer than two pairs: one difference cannot be distinguished from
            chance.
    """
    if len(arm) != len(baseline):
        raise errors.InvalidInput(
            f"`arm` and `baseline` must pair up, but got {len(arm)}, {len(baseline)}."
        )
    if len(arm) < _FEWEST:
        raise errors.bad(
            "seeds",
            f"be at least {_FEWEST} for a test",
            len(arm),
            "One difference cannot be told from chance: run more seeds.",
        )
    gaps = np.asarray(arm, dtype=float) - np.asarray(baseline, dtype=float)
    low, high = _interval(gaps)
    permuted = _permutation_p(gaps)
    return Comparison(
        len(gaps), float(gaps.mean()), low, high, permuted, _wilcoxon_p(gaps), permuted
    )


def holm(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Return the comparisons with `holm_p` corrected for their number (Holm 1979)."""
    order = sorted(comparisons, key=lambda name: comparisons[name].permutation_p)
    corrected, least = {}, 0.0
    for rank, name in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * comparisons[name].permutation_p))
        corrected[name] = replace(comparisons[name], holm_p=least)
    return {name: corrected[name] for name in comparisons}


def mcnemar_p(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Exact two-sided McNemar p: are two classifiers equally accurate on the same rows?"""
    if len(one) != len(other):
        raise errors.InvalidInput(
            f"Both must have judged the same rows, but got {len(one)}, {len(other)}."
        )
    only_one = sum(a and not b for a, b in zip(one, other, strict=True))
    only_other = sum(b and not a for a, b in zip(one, other, strict=True))
    return discordant_p(only_one, only_other)


def _interval(gaps: np.ndarray) -> tuple[float, float]:
    if np.ptp(gaps) == 0:
        return float(gaps[0]), float(gaps[0])
    found = (
        _stats()
        .bootstrap(
            (gaps,), np.mean, method="percentile", n_resamples=9_999, rng=np.random.default_rng(0)
        )
        .confidence_interval
    )
    return float(found.low), float(found.high)


def _permutation_p(gaps: np.ndarray) -> float:
    if not gaps.any():
        return 1.0
    # Exact as long as there are no more than 2 ** 13 ways to flip the signs.
    found = _stats().permutation_test(
        (gaps,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=9_999,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _wilcoxon_p(gaps: np.ndarray) -> float:
    return float(_stats().wilcoxon(gaps).pvalue) if gaps.any() else 1.0
