from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup_hf import parse_weights
from mixup_hf.mixing.weights import Weights, variance_factor
from mixup_hf.mixing.weights.beta import Beta
from mixup_hf.mixing.weights.dirichlet import Dirichlet
from mixup_hf.mixing.weights.epbeta import EpBeta
from mixup_hf.mixing.weights.fixed import Fixed
from mixup_hf.mixing.weights.uniform import Uniform

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
        ("beta:alpha=0.4", Beta(0.4)),
        ("epbeta", EpBeta.symmetric(0.3)),
        ("epbeta:eps=0.2", EpBeta.symmetric(0.2)),
        ("epbeta:0.2", EpBeta.symmetric(0.2)),
        ("epbeta:alpha=4.34,beta=1.33,eps0=0.3,eps1=0.3", EpBeta(4.34, 1.33, 0.3, 0.3)),
        ("epbeta:alpha=4.34,beta=1.33,eps0=0.3,eps1=0.3,tol=0.01", EpBeta(4.34, 1.33, 0.3, 0.3)),
        ("epbeta:mean=0.9,eps0=0.3,eps1=0.2", EpBeta.from_mean(0.9, 0.3, 0.2)),
    ],
)
def test_specifications_are_read(spec: str, expected: Weights) -> None:
    assert parse_weights(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gauss:1", "be one of 'beta', 'dirichlet', 'epbeta', 'fixed', 'uniform'"),
        ("", "be one of"),
        ("beta:x", "give alpha as a number"),
        ("beta:1,2", "at most 1 value"),
        ("beta:alpha=1,alpha=2", "at most 1 value"),
        ("beta:gamma=1", "each of alpha at most once"),
        ("epbeta:eps=-1", "`weights.eps` must be greater than 0"),
        ("epbeta:eps=0", "`weights.eps` must be greater than 0"),
        ("epbeta:eps=0.3,alpha=2", "eps stands alone"),
        ("epbeta:alpha=2,beta=2", "do not make an EpBeta"),
        ("epbeta:eps0=0.3,eps1=0.3", "do not make an EpBeta"),
        ("epbeta:mean=1,eps0=0.3,eps1=0.3", "no EpBeta with mean 1"),
        ("epbeta:mean=0.5,eps0=0,eps1=0", "no EpBeta with mean 0.5"),
        ("epbeta:mean=1.5,eps0=0.3,eps1=0.3", r"`weights.mean` must lie in"),
        ("epbeta:alpha=1,beta=1,eps0=0,eps1=0,tol=0.01", "keep 0.6667 of the variance"),
        ("epbeta:alpha=0,beta=1,eps0=0,eps1=0", "`weights.alpha`"),
        ("epbeta:alpha=1,beta=1,eps0=-0.1,eps1=0", "`weights.eps0`"),
        ("dirichlet:m=1", "`weights.m` must be at least 2.*number of parents"),
        ("dirichlet:1.0,m=2.5", "give m as a whole number"),
        ("dirichlet:-1", "`weights.alpha`"),
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


def test_epbeta_is_the_papers() -> None:
    """A figure of arXiv 2503.02645."""
    weights = EpBeta(4.34, 1.33, 0.3, 0.3)
    assert weights.mean == pytest.approx(0.92469, abs=1e-5)
    assert weights.second_moment == pytest.approx(0.92397, abs=1e-5)
    assert variance_factor(weights) == pytest.approx(0.99855, abs=1e-5)
    exact = EpBeta.from_mean(0.9247, 0.3, 0.3)
    assert exact.alpha == pytest.approx(4.287, abs=1e-3)
    assert exact.beta == pytest.approx(1.314, abs=1e-3)


@given(st.floats(0.01, 3))
def test_a_symmetric_epbeta_keeps_all_of_the_variance(eps: float) -> None:
    weights = EpBeta.symmetric(eps)
    assert weights.mean == pytest.approx(0.5)
    assert variance_factor(weights) == pytest.approx(1, abs=1e-9)


@given(st.floats(0.1, 5), st.integers(2, 6))
def test_dirichlet_weights_are_shares_of_m_parents(alpha: float, m: int) -> None:
    weights = Dirichlet(alpha, m)
    samples = weights.sample(20_000, np.random.default_rng(0))
    assert samples.shape == (20_000, m)
    np.testing.assert_allclose(samples.sum(axis=1), 1)
    assert samples[:, 0].mean() == pytest.approx(weights.mean, abs=0.02)
    assert np.square(samples[:, 0]).mean() == pytest.approx(weights.second_moment, abs=0.02)
    two = Dirichlet(alpha, 2)  # of two parents it is Beta
    assert variance_factor(two) == pytest.approx(variance_factor(Beta(alpha)))


@given(st.floats(0.02, 0.98), st.floats(0.05, 2), st.floats(0.05, 2))
def test_an_epbeta_of_any_mean_keeps_all_of_the_variance(
    mean: float, eps0: float, eps1: float
) -> None:
    weights = EpBeta.from_mean(mean, eps0, eps1)
    assert weights.mean == pytest.approx(mean)
    assert variance_factor(weights) == pytest.approx(1, abs=1e-6)


@given(st.floats(0.1, 9), st.floats(0.1, 9), st.floats(0, 1), st.floats(0, 1))
def test_epbeta_moments_are_those_of_its_samples(
    alpha: float, beta: float, eps0: float, eps1: float
) -> None:
    weights = EpBeta(alpha, beta, eps0, eps1)
    samples = weights.sample(20_000, np.random.default_rng(0))
    assert ((samples >= -eps0 - 1e-9) & (samples <= 1 + eps1 + 1e-9)).all()
    assert samples.mean() == pytest.approx(weights.mean, abs=0.06)
    assert np.square(samples).mean() == pytest.approx(weights.second_moment, abs=0.15)


SPECS = ["beta:0.1", "beta:0.4", "beta:2", "uniform", "fixed:0.3", "epbeta:eps=0.3"]
SPECS += ["epbeta:mean=0.9,eps0=0.3,eps1=0.3", "epbeta:alpha=4.34,beta=1.33,eps0=0.3,eps1=0.3"]
SPECS += ["dirichlet:1.0,m=3", "dirichlet:0.3,m=5", "dirichlet:2"]


@pytest.mark.parametrize("spec", SPECS)
def test_the_covariance_of_mixes_is_what_theory_says(spec: str) -> None:
    rng = np.random.default_rng(1)
    shape = np.array([[2.0, 0.0, 0.0], [0.7, 1.0, 0.0], [-0.5, 0.3, 0.6]])
    weights = parse_weights(spec)
    parents = rng.standard_normal((weights.num_parents, 200_000, 3)) @ shape.T
    drawn = weights.sample(200_000, rng)
    shares = np.stack([drawn, 1 - drawn], axis=1) if drawn.ndim == 1 else drawn
    found = np.cov((shares.T[..., None] * parents).sum(axis=0), rowvar=False)
    expected = variance_factor(weights) * (shape @ shape.T)
    assert np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)
