"""Tests of the tests: they find what is there, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mixup_hf.evaluation.statistics import Comparison, compare, holm, mcnemar_p

SIMULATIONS = 300


def comparison(p: float) -> Comparison:
    return Comparison(5, 0.01, 0.0, 0.02, p, p, p)


def simulate(shift: float, pairs: int = 8) -> list[Comparison]:
    """Two arms whose runs differ by the seed's luck, which they share, and by their own."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(SIMULATIONS):
        luck = rng.normal(0.7, 0.05, pairs)
        arms = luck + rng.normal(0, 0.01, (2, pairs))
        found.append(compare(arms[0] + shift, arms[1]))
    return found


def test_two_equal_arms_differ_in_one_of_twenty_simulations() -> None:
    found = simulate(0.0)
    # An exact test cannot be too eager; a percentile interval of eight pairs is, a little.
    assert 0.02 <= np.mean([each.permutation_p < 0.05 for each in found]) <= 0.08
    assert 0.02 <= np.mean([each.wilcoxon_p < 0.05 for each in found]) <= 0.08
    assert np.mean([not each.low <= 0 <= each.high for each in found]) <= 0.15


def test_a_gain_of_two_deviations_is_found() -> None:
    found = simulate(0.028)
    assert np.mean([each.permutation_p < 0.05 for each in found]) > 0.95
    assert np.mean([each.difference for each in found]) == pytest.approx(0.028, abs=0.002)


def test_pairing_is_used() -> None:
    """Unpaired, the luck of the seeds would hide the gain."""
    rng = np.random.default_rng(1)
    luck = rng.normal(0.7, 0.1, 8)
    assert compare(luck + 0.01, luck).permutation_p == pytest.approx(2 / 2**8)
    assert stats.ttest_ind(luck + 0.01, luck).pvalue > 0.5


def test_identical_arms_have_no_difference() -> None:
    found = compare([0.7, 0.8, 0.9], [0.7, 0.8, 0.9])
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.permutation_p, found.wilcoxon_p) == (1, 1)


def test_one_seed_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="`seeds` must be at least 2.*told from chance"):
        compare([0.7], [0.6])
    with pytest.raises(ValueError, match="must pair up"):
        compare([0.7, 0.8], [0.6])


def test_holm_by_hand() -> None:
    given = {"a": comparison(0.01), "b": comparison(0.04), "c": comparison(0.03)}
    found = {name: each.holm_p for name, each in holm(given).items()}
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": comparison(0.6), "b": comparison(0.7)})["b"].holm_p == 1.0
    assert holm(given)["a"] == replace(given["a"], holm_p=pytest.approx(0.03))


def test_mcnemar_counts_only_rows_that_one_of_both_got_right() -> None:
    one = [True] * 9 + [False] * 1 + [True] * 50
    other = [False] * 9 + [True] * 1 + [True] * 50
    assert mcnemar_p(one, other) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar_p(one, one) == 1.0
    with pytest.raises(ValueError, match="the same rows"):
        mcnemar_p(one, other[:-1])
