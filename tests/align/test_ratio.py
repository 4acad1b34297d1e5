"""The ratio curve: asked for and recovered ratio agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aligning import make_config, save_partners
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mixup_hf import Inverter
from mixup_hf.align import align
from mixup_hf.align.ratio import fit_ratio_curve, invert_response
from mixup_hf.inverter.checkpoint import AlignerConfig


class Leaning:
    """Decodes a mix of two of the axes to a place that leans to the nearer one."""

    def __init__(self, steepness: float) -> None:
        self.steepness = steepness

    def encode(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(number) for number in text.split()] for text in texts])

    def mix_weights(self, lams: Tensor) -> Tensor:
        return lams

    def invert(self, embeddings: Tensor, **_: Any) -> list[str]:
        powers = embeddings**self.steepness
        places = powers / powers.sum(-1, keepdim=True)
        return [" ".join(f"{number:.9f}" for number in place) for place in places.tolist()]


@pytest.mark.parametrize("steepness", [1.0, 2.0, 4.0])
def test_the_curve_makes_up_for_much_of_a_decoders_leaning(
    steepness: float,
) -> None:
    decoder = Leaning(steepness)
    curve = fit_ratio_curve(decoder, torch.eye(6), num_pairs=5)
    asked = torch.linspace(0, 1, 11)
    identity = np.linspace(0, 1, len(curve))
    weights = torch.from_numpy(np.interp(asked, np.linspace(0, 1, len(curve)), curve)).float()
    ends = torch.eye(2)
    decoded = decoder.invert(weights[:, None] * ends[:1] + (1 - weights)[:, None] * ends[1:])
    recovered = decoder.encode(decoded)[:, 0]
    plain = asked**steepness / (asked**steepness + (1 - asked) ** steepness)
    if steepness == 1:  # leans to nobody
        np.testing.assert_allclose(curve, identity, atol=1e-3)
    else:
        assert (recovered - asked).abs().max() < 0.6 * (plain - asked).abs().max()


@given(st.lists(st.floats(0, 1), min_size=3, max_size=15))
def test_a_curve_is_symmetric_and_rises_from_zero_to_one(values: list[float]) -> None:
    response = np.array(values)
    even = (response + 1 - response[::-1]) / 2
    if even.max() - even.min() < 1e-3 or even[-1] - even[0] < 1e-2:
        return  # does not rise
    curve = invert_response(response)
    assert AlignerConfig(ratio_curve=curve).ratio_curve == curve
    np.testing.assert_allclose(np.array(curve) + curve[::-1], 1, atol=2e-4)


def test_the_curve_is_the_one_under_which_ratios_are_told_apart_best() -> None:
    """A decoder that says either parent by chance, the likelier the nearer, but never a mixture."""

    class Noisy(Leaning):
        def invert(self, embeddings: Tensor, **_: Any) -> list[str]:
            draw = torch.Generator().manual_seed(0)
            noise = 0.15 * torch.randn(len(embeddings), 1, generator=draw)
            largest = embeddings.max(-1, keepdim=True).values
            steep = torch.where(embeddings == largest, largest**4 + noise, embeddings**4)
            return super().invert(steep.clamp_min(0))

    curve = np.array(fit_ratio_curve(Noisy(1.0), torch.eye(6), num_pairs=15))
    grid = np.linspace(0, 1, len(curve))
    assert (np.abs(curve - 0.5) <= np.abs(grid - 0.5) + 1e-6).all()  # nearer to the middle


def test_a_decoder_that_ignores_the_ratio_has_no_curve() -> None:
    with pytest.raises(ValueError, match="do not follow the ratio .* `ratio_pairs: 0`"):
        invert_response(np.full(11, 0.5))


@pytest.mark.parametrize("curve", [[0.0, 0.6, 0.5, 1.0], [0.1, 1.0], [0.0, 0.9], [0.0]])
def test_a_damaged_curve_is_refused(curve: list[float]) -> None:
    with pytest.raises(ValueError, match="`ratio_curve` must rise from 0 to 1"):
        AlignerConfig(ratio_curve=curve)


def test_an_aligner_carries_its_curve(tmp_path: Path) -> None:
    partners = save_partners(tmp_path)
    folder = align(make_config(partners, tmp_path / "out", ratio_pairs=4))
    inverter = Inverter.from_pretrained(folder, device="cpu", quantization="none")
    curve = inverter.aligner.config.ratio_curve
    assert curve is not None
    assert len(curve) == 21
    lams = torch.tensor([-0.2, 0.0, 0.3, 0.5, 1.0, 1.1])
    weights = inverter.mix_weights(lams)
    assert weights[[0, 1, 4, 5]].tolist() == pytest.approx([-0.2, 0.0, 1.0, 1.1])
    assert weights[2] == pytest.approx(curve[6])
    inverter.aligner.config.ratio_curve = None
    assert torch.equal(inverter.mix_weights(lams), lams)
