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
from mixup_hf.align import align, train
from mixup_hf.align.ratio_curve import STEPS, NoResponseError, fit_ratio_curve, invert_response
from mixup_hf.inverter.aligner import AlignerConfig
from mixup_hf.inverter.checkpoint import load_aligner


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
def test_with_the_curve_a_leaning_decoder_says_what_was_asked_for(
    steepness: float,
) -> None:
    decoder = Leaning(steepness)
    curve = fit_ratio_curve(decoder, torch.eye(6), num_pairs=5)
    asked = torch.linspace(0, 1, 11)
    weights = torch.from_numpy(np.interp(asked, np.linspace(0, 1, len(curve)), curve)).float()
    ends = torch.eye(2)
    decoded = decoder.invert(weights[:, None] * ends[:1] + (1 - weights)[:, None] * ends[1:])
    recovered = decoder.encode(decoded)[:, 0]
    assert (recovered - asked).abs().max() < (0.03 if steepness > 1 else 1e-3)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=15))
def test_a_curve_is_symmetric_and_rises_from_zero_to_one(values: list[float]) -> None:
    response = np.array(values)
    even = (response + 1 - response[::-1]) / 2
    if even.max() - even.min() < 1e-3 or even[-1] - even[0] < 1e-2:
        return  # does not rise
    curve = invert_response(response)
    assert AlignerConfig(ratio_curve=curve).ratio_curve == curve
    np.testing.assert_allclose(np.array(curve) + curve[::-1], 1, atol=2e-4)


class Undecided(Leaning):
    """Near the middle it says either much more or much less than it should, in turn."""

    def invert(self, embeddings: Tensor, **_: Any) -> list[str]:
        share = embeddings.max(-1, keepdim=True).values
        found = share**4 / (share**4 + (1 - share) ** 4)
        in_turn = (torch.arange(len(embeddings)) // (STEPS + 1) % 2)[:, None]
        found = torch.where((share > 0.51) & (share < 0.68), 0.3 + 0.7 * in_turn, found)
        is_larger = embeddings == share
        places = torch.where(is_larger, found, torch.where(embeddings > 0, 1 - found, 0.0))
        return [" ".join(f"{number:.9f}" for number in place) for place in places.tolist()]


def test_a_curve_that_would_blur_ratios_is_not_taken_whole() -> None:
    curve = np.array(fit_ratio_curve(Undecided(1.0), torch.eye(6), num_pairs=20))
    grid = np.linspace(0, 1, STEPS + 1)
    steep = grid**4 / (grid**4 + (1 - grid) ** 4)
    steep[(grid > 0.51) & (grid < 0.68)] = 0.65
    steep[(grid < 0.49) & (grid > 0.32)] = 0.35
    exact = np.array(invert_response(steep))
    quarter = STEPS // 4
    assert grid[quarter] <= curve[quarter] < exact[quarter] - 0.01


def test_a_decoder_that_ignores_the_ratio_has_no_curve() -> None:
    with pytest.raises(ValueError, match="do not depend on the mixing ratio.* `ratio_pairs: 0`"):
        invert_response(np.full(11, 0.5))


@pytest.mark.parametrize("curve", [[0.0, 0.6, 0.5, 1.0], [0.1, 1.0], [0.0, 0.9], [0.0]])
def test_a_damaged_curve_is_refused(curve: list[float]) -> None:
    with pytest.raises(ValueError, match="`ratio_curve` must increase from 0 to 1"):
        AlignerConfig(ratio_curve=curve)


def test_a_training_is_not_lost_for_a_curve_that_cannot_be_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nothing(*_: Any, **__: Any) -> list[float]:
        raise NoResponseError("No response.")

    monkeypatch.setattr(train, "fit_ratio_curve", nothing)
    folder = align(make_config(save_partners(tmp_path), tmp_path / "out", ratio_pairs=12))
    assert load_aligner(folder).config.ratio_curve is None
    assert "saved without" in caplog.text


def test_an_aligner_carries_its_curve(tmp_path: Path) -> None:
    partners = save_partners(tmp_path)
    folder = align(make_config(partners, tmp_path / "out", ratio_pairs=12))
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
