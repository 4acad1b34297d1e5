"""The ratio curve: which embedding weight makes a decoded sentence follow the ratio asked for.

A decoder leans to the nearer parent: a mix of 0.25 and 0.75 of two sentences comes back as almost
nothing but the second. A label of 0.25 would then be wrong of the sentence it is put on. The curve
turns the ratio asked for into a weight nearer to the middle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.evaluation.fidelity import RoundTrip
from mixup_hf.evaluation.ratio_recovery import cross_topic_pairs, lam_recovery, recovered_lam
from mixup_hf.mixing.interpolation import linear
from mixup_hf.runtime import counter_rng

STEPS = 20  # the curve holds the weights for ratios 0, 0.05, ..., 1
_STRENGTHS = np.linspace(1, 0, 11)  # of equals, the curve nearest to the exact one is taken
_ASKED = np.array([0.0, 0.25, 0.5, 0.75, 1.0])


class NoResponseError(errors.InvalidInput):
    """Decoded sentences do not depend on the ratio."""


def fit_ratio_curve(
    inverter: RoundTrip,
    embeddings: Tensor,
    *,
    num_pairs: int = 100,
    seed: int = 0,
    **decoding: Any,
) -> list[float]:
    """Measure how decoded sentences follow the embedding weight, and turn that round.

    The curve that makes the mean recovered ratio exact puts mixes where they are hardest to read,
    and neighbouring ratios blur. Of the curves between it and no curve at all, the one is taken
    under which recovered ratios follow those asked for best (Spearman's rho on these pairs).

    Args:
        inverter: Decodes and encodes.
        embeddings: Of sentences (N, D), other than those that fidelity is measured on.
        num_pairs: Cross-topic pairs, each decoded at 21 weights.
        seed: Which pairs.
        **decoding: As for `Inverter.invert`; greedy by default.

    Returns:
        Embedding weights for the ratios 0, 0.05, ..., 1: from 0 to 1, rising, and symmetric, for
        the parents' order means nothing.

    Raises:
        NoResponseError: Decoded sentences do not follow the ratio at all.
    """
    errors.at_least("num_pairs", num_pairs, 2)
    pairs = torch.from_numpy(cross_topic_pairs(embeddings, num_pairs, counter_rng(seed, 2)))
    rows = pairs.repeat_interleave(STEPS + 1, dim=0)
    first, second = embeddings[rows[:, 0]], embeddings[rows[:, 1]]
    weights = torch.linspace(0, 1, STEPS + 1).repeat(num_pairs)
    decoded = inverter.invert(linear(first, second, weights), **({"temperature": 0.0} | decoding))
    landed = inverter.encode(decoded)
    found = recovered_lam(landed, first, second).reshape(num_pairs, STEPS + 1).double().numpy()
    found = np.concatenate([found, 1 - found[:, ::-1]])  # each pair, seen from its other end
    exact = np.array(invert_response(found.mean(0)))
    grid = np.linspace(0, 1, STEPS + 1)
    curves = [(1 - strength) * grid + strength * exact for strength in _STRENGTHS]
    best = max(curves, key=lambda curve: _follows(found, np.interp(_ASKED, grid, curve)))
    return [round(float(weight), 4) for weight in best]


def _follows(found: np.ndarray, weights: np.ndarray) -> float:
    """Spearman's rho when the ratios asked for are mixed by `weights`, to the nearest measured."""
    columns = np.round(weights * STEPS).astype(int)
    asked = np.tile(_ASKED, (len(found), 1))
    return lam_recovery(asked.ravel(), found[:, columns].ravel())["spearman"]


def invert_response(response: np.ndarray) -> list[float]:
    """The weights at which a mean response (n,) to evenly spaced weights is evenly spaced itself.

    Raises:
        NoResponseError: The response does not rise: nothing to be turned round.
    """
    from sklearn.isotonic import isotonic_regression

    even = (response + 1 - response[::-1]) / 2
    rising = isotonic_regression(even)
    if rising[-1] <= rising[0]:
        raise NoResponseError(
            "Decoded sentences do not depend on the mixing ratio, so no ratio curve can be fitted. "
            "Train the aligner longer, or set `ratio_pairs: 0`."
        )
    share = (rising - rising[0]) / (rising[-1] - rising[0])
    # Where the response stands still, any weight would do; a hair of slope takes the middle ones.
    grid = np.linspace(0, 1, len(response))
    share = (share + 1e-6 * grid) / (1 + 1e-6)
    curve = np.interp(grid, share, grid)
    curve = (curve + 1 - curve[::-1]) / 2
    return [round(float(weight), 4) for weight in curve]
