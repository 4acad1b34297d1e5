from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup_hf import parse_weights
from mixup_hf.weights import Beta, Fixed, Uniform, Weights, variance_factor

DISTRIBUTIONS = st.one_of(
    st.floats(0.05, 20).map(Beta), st.just(Uniform()), st.floats(0, 1).map(Fixed)
)


@given(DISTRIBUTIONS, st.integers(0, 2**32))
def test_samples_are_weights(weights: Weights, seed: int) -> None:
    samples = weights.sample(200, np.random.default_rng(seed))
    assert samples.shape == (200,)
    assert samples.dtype == np.float64
    assert ((samples >= 0) & (samples <= 1)).all()


@given(DISTRIBUTIONS)
def test_moments_are_those_of_the_samples(weights: Weights) -> None:
    samples = weights.sample(20_000, np.random.default_rng(0))
    # Weights lie in [0, 1], so a mean of 20,000 is off by at most 0.5 / sqrt(20,000) = 0.0035
    # (one standard deviation).
    assert samples.mean() == pytest.approx(weights.mean, abs=0.02)
    assert np.square(samples).mean() == pytest.approx(weights.second_moment, abs=0.02)


@given(DISTRIBUTIONS, st.integers(0, 2**32))
def test_the_generator_alone_decides_the_samples(weights: Weights, seed: int) -> None:
    first = weights.sample(8, np.random.default_rng(seed))
    np.random.random()  # moves the global generator on
    assert (weights.sample(8, np.random.default_rng(seed)) == first).all()


@given(DISTRIBUTIONS)
def test_variance_factor_lies_between_a_half_and_one(weights: Weights) -> None:
    assert 0.5 - 1e-12 <= variance_factor(weights) <= 1 + 1e-12


@pytest.mark.parametrize("weights", [Beta(0.4), Beta(2.0), Uniform(), Fixed(0.3)])
def test_variance_factor_is_the_variance_that_mixes_of_normals_keep(weights: Weights) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 200_000))
    lams = weights.sample(200_000, rng)
    mixes = lams * first + (1 - lams) * second
    assert mixes.var() == pytest.approx(variance_factor(weights), abs=0.01)


def test_a_small_alpha_keeps_mixes_close_to_one_parent_and_a_large_one_to_the_middle() -> None:
    rng = np.random.default_rng(0)
    extreme, middle = Beta(0.1).sample(1000, rng), Beta(10.0).sample(1000, rng)
    assert np.abs(extreme - 0.5).mean() > 0.4
    assert np.abs(middle - 0.5).mean() < 0.15


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("beta:0.4", Beta(0.4)),
        ("beta:2", Beta(2.0)),
        ("beta:1e-1", Beta(0.1)),
        ("beta", Beta()),
        ("uniform", Uniform()),
        ("fixed:0", Fixed(0.0)),
        ("fixed:0.25", Fixed(0.25)),
        ("fixed", Fixed()),
    ],
)
def test_specifications_are_read(spec: str, expected: Weights) -> None:
    assert parse_weights(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gauss:1", "name one of beta, uniform, fixed"),
        ("", "name one of"),
        ("beta:x", "hold numbers"),
        ("beta:1,2", "at most 1 value"),
        ("uniform:1", "at most 0 value"),
        ("beta:0", "greater than 0"),
        ("beta:-1", "greater than 0"),
        ("beta:nan", "greater than 0"),
        ("fixed:1.5", r"lie in \[0.0, 1.0\]"),
        ("fixed:-0.1", r"lie in \[0.0, 1.0\]"),
    ],
)
def test_a_bad_specification_says_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_weights(spec)


def test_an_infinite_alpha_is_refused_because_it_gives_no_numbers() -> None:
    with pytest.raises(ValueError, match="alpha"):
        parse_weights("beta:inf")
