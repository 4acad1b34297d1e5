"""Structure: do generated rows vary as real ones do, before and after decoding?

Mixing shrinks the covariance of a class by a known factor (arXiv 2503.02645); decoding changes it
again, by a factor that has to be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.inverter.model import Inverter
from mixup_hf.mixing.interpolation import mix
from mixup_hf.mixing.pairing import PairPlan
from mixup_hf.mixing.weights import parse_weights, variance_factor
from mixup_hf.runtime import counter_rng

_PERMUTATIONS = 199
_STRUCTURE = 5  # identifies this random stream


@dataclass(frozen=True)
class Structure:
    """How similarly two sets of embeddings are spread.

    Attributes:
        variance_ratio: `tr Cov(made) / tr Cov(real)`; 1 means that the variance is preserved.
        frobenius: `|| Cov(made) - Cov(real) || / || Cov(real) ||`.
        energy: Energy distance; 0 for identical distributions.
        p_value: Share of random relabelings with an energy distance at least as large.
    """

    variance_ratio: float
    frobenius: float
    energy: float
    p_value: float


@dataclass(frozen=True)
class StructureReport:
    """How mixing with one weight distribution changes the spread of a training set.

    Attributes:
        weights: Specification of the distribution.
        expected: The theoretical variance ratio for mixes of independent parents.
        before: Comparison of the mixes themselves, by class.
        after: Comparison of the decoded and re-embedded sentences, by class.
        curve_before: Mean variance ratio after 1, 2, ... generations, without decoding.
        curve_after: The same, with each generation decoded and re-embedded.
    """

    weights: str
    expected: float
    before: dict[str, Structure]
    after: dict[str, Structure]
    curve_before: tuple[float, ...]
    curve_after: tuple[float, ...]


def compare(real: Tensor, made: Tensor, *, seed: int = 0) -> Structure:
    """Compare generated rows (m, D) with real ones (n, D); at least two of each."""
    errors.at_least("real", len(real), 2)
    errors.at_least("made", len(made), 2)
    expected, found = torch.cov(real.double().T), torch.cov(made.double().T)
    energy, p_value = energy_test(real, made, seed=seed)
    return Structure(
        variance_ratio=float(found.trace() / expected.trace()),
        frobenius=float((found - expected).norm() / expected.norm()),
        energy=energy,
        p_value=p_value,
    )


def energy_test(
    first: Tensor, second: Tensor, *, permutations: int = _PERMUTATIONS, seed: int = 0
) -> tuple[float, float]:
    """Energy distance between two samples (n, D) and (m, D), and its permutation p-value.

    `2 E|X - Y| - E|X - X'| - E|Y - Y'|` (Szekely and Rizzo), over all pairs of rows.
    """
    rows = torch.cat([first, second]).double()
    distance = torch.cdist(rows, rows)
    rng = counter_rng(seed, _STRUCTURE)
    membership = np.zeros((permutations + 1, len(rows)))
    membership[0, : len(first)] = 1
    for each in membership[1:]:
        each[rng.permutation(len(rows))[: len(first)]] = 1
    inside = torch.from_numpy(membership)
    outside = 1 - inside
    n, m = len(first), len(second)
    towards = inside @ distance
    across = (towards * outside).sum(1) / (n * m)
    within = (towards * inside).sum(1) / n**2
    beyond = ((outside @ distance) * outside).sum(1) / m**2
    energies = 2 * across - within - beyond
    # The observed labeling is one of the relabelings, so p is never 0; 1e-12 absorbs rounding.
    p_value = float((energies >= energies[0] - 1e-12).double().mean())
    return float(energies[0]), p_value


def measure_structure(
    inverter: Inverter,
    texts: Sequence[str],
    labels: Sequence[int],
    names: Sequence[str],
    weights: str,
    *,
    num_rows: int = 200,
    generations: int = 10,
    interpolation: str = "linear",
    seed: int = 0,
    on_generation: Callable[[], object] | None = None,
) -> StructureReport:
    """Mix same-class pairs of a training set, decode, compare, and repeat on the result.

    Args:
        inverter: Encodes the texts and decodes the mixes.
        texts: The training texts (N).
        labels: Their class indices (N).
        names: Class names (C).
        weights: Weight distribution, in the format of `parse_weights`.
        num_rows: Rows per generation.
        generations: Number of generations; each mixes the rows of the previous one.
        interpolation: How embeddings are mixed.
        seed: Seed for pairs, ratios and decoding.
        on_generation: Called after each generation, for a progress bar.

    Raises:
        ValueError: A class has fewer than three rows, too few for a meaningful covariance.
    """
    errors.at_least("generations", generations, 1)
    classes = np.asarray(labels)
    _check_classes(classes, names)
    real = inverter.encode(texts)
    maker = _Maker(inverter, weights, interpolation, num_rows, seed)
    mixed, decoded = (real, classes), (real, classes)
    before: dict[str, Structure] = {}
    after: dict[str, Structure] = {}
    curves: tuple[list[float], list[float]] = ([], [])
    for generation in range(generations):
        mixed = maker.mix(*mixed, generation)
        decoded = maker.decode(*maker.mix(*decoded, generation, adjusted=True), generation)
        if generation == 0:
            before = _by_class(real, classes, *mixed, names, seed)
            after = _by_class(real, classes, *decoded, names, seed)
        for curve, made in zip(curves, (mixed, decoded), strict=True):
            curve.append(_mean_ratio(real, classes, *made))
        if on_generation is not None:
            on_generation()
    expected = variance_factor(parse_weights(weights))
    return StructureReport(weights, expected, before, after, tuple(curves[0]), tuple(curves[1]))


class _Maker:
    """Generates each generation of rows from the previous one."""

    def __init__(
        self, inverter: Inverter, weights: str, interpolation: str, num_rows: int, seed: int
    ) -> None:
        self.inverter, self.weights = inverter, parse_weights(weights)
        self.interpolation, self.num_rows, self.seed = interpolation, num_rows, seed

    def mix(
        self, embeddings: Tensor, classes: np.ndarray, generation: int, *, adjusted: bool = False
    ) -> tuple[Tensor, np.ndarray]:
        """Return mixes (num_rows, D) of same-class pairs, and their classes."""
        plan = PairPlan(
            classes,
            pairing="same_class",
            weights=self.weights,
            seed=self.seed,
            chunk_size=self.num_rows,
            first_chunk=self.num_rows,
        )
        pairs = plan.chunk(generation, 0, self.num_rows)
        shares = torch.from_numpy(pairs.shares).float()
        if adjusted and shares.shape[1] == 2:
            first = self.inverter.mix_weights(shares[:, 0])
            shares = torch.stack([first, 1 - first], dim=1)
        rows = torch.from_numpy(pairs.parents)
        return mix(embeddings[rows], shares, self.interpolation), classes[pairs.first]

    def decode(
        self, mixes: Tensor, classes: np.ndarray, generation: int
    ) -> tuple[Tensor, np.ndarray]:
        """Decode the mixes and re-embed the sentences."""
        sentences = self.inverter.invert(mixes, seed=(self.seed, generation), progress=False)
        return self.inverter.encode(sentences), classes


def _by_class(
    real: Tensor,
    classes: np.ndarray,
    made: Tensor,
    made_classes: np.ndarray,
    names: Sequence[str],
    seed: int,
) -> dict[str, Structure]:
    return {
        names[label]: compare(real[classes == label], made[made_classes == label], seed=seed)
        for label in np.unique(classes).tolist()
    }


def _mean_ratio(real: Tensor, classes: np.ndarray, made: Tensor, made_classes: np.ndarray) -> float:
    ratios = [
        made[made_classes == label].var(0).sum() / real[classes == label].var(0).sum()
        for label in np.unique(classes)
    ]
    return float(torch.stack(ratios).mean())


def _check_classes(classes: np.ndarray, names: Sequence[str]) -> None:
    found, counts = np.unique(classes, return_counts=True)
    small = [names[label] for label in found[counts < 3]]
    if small:
        raise errors.bad("labels", "hold at least three rows of every class", small)
