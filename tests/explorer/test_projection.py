"""The map: principal components, and which real rows are on it."""

from __future__ import annotations

import pytest
import torch

from mixup_hf.errors import InvalidInput
from mixup_hf.explorer.projection import draw_rows, project


def test_the_plane_with_the_most_variance_is_shown() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(40, 2, generator=generator) * torch.tensor([5.0, 2.0])
    real = torch.cat([flat, 0.01 * torch.randn(40, 6, generator=generator)], dim=1)
    shown = project(real, torch.zeros(0, 8))
    assert shown.kept_variance > 0.999
    assert shown.made.shape == (0, 2)
    assert shown.real.min() == 0 and shown.real.max() == 1
    along = torch.from_numpy(shown.real[:, 0])
    assert abs(torch.corrcoef(torch.stack([along, flat[:, 0]]))[0, 1]) > 0.95


def test_a_mix_lies_between_its_parents() -> None:
    real = torch.randn(10, 8, generator=torch.Generator().manual_seed(1))
    shown = project(real, 0.25 * real[:1] + 0.75 * real[1:2])
    expected = 0.25 * shown.real[0] + 0.75 * shown.real[1]
    assert shown.made[0] == pytest.approx(expected, abs=1e-5)


def test_equal_rows_and_too_few_rows() -> None:
    shown = project(torch.ones(4, 8), torch.ones(1, 8))
    assert shown.kept_variance == 1.0 and not shown.real.any()
    with pytest.raises(InvalidInput, match="number of real rows"):
        project(torch.ones(2, 8), torch.ones(1, 8))


def test_parents_are_always_among_the_rows_drawn() -> None:
    rows = draw_rows(1000, 50, [3, 3, 999], seed=0)
    assert len(rows) == 50 and {3, 999} <= set(rows) and rows == sorted(set(rows))
    assert rows == draw_rows(1000, 50, [999, 3], seed=0) != draw_rows(1000, 50, [3, 999], seed=1)
    assert draw_rows(4, 50, [], seed=0) == [0, 1, 2, 3]
    assert draw_rows(9, 2, [1, 2, 3], seed=0) == [1, 2, 3]
