from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup_hf.mixing.chunks import ChunkGrid
from mixup_hf.mixing.pairing import PairPlan
from mixup_hf.mixing.weights.uniform import Uniform


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(256, [8, 16, 32, 64, 128, 256, 256]), (100, [8, 16, 32, 64, 100, 100]), (4, [4, 4, 4])],
)
def test_chunks_double_up_to_the_largest(largest: int, sizes: list[int]) -> None:
    grid = ChunkGrid(largest)
    found = [grid.start(chunk + 1) - grid.start(chunk) for chunk in range(len(sizes))]
    assert found == sizes


@given(largest=st.integers(1, 300), first=st.integers(1, 300), index=st.integers(0, 3000))
def test_every_position_lies_in_its_chunk(largest: int, first: int, index: int) -> None:
    grid = ChunkGrid(largest, first)
    chunk = grid.chunk_of(index)
    assert grid.start(chunk) <= index < grid.start(chunk + 1)
    assert grid.count(index + 1) == chunk + 1
    assert grid.count(0) == 0


def test_only_the_last_chunk_depends_on_the_number_of_pairs() -> None:
    plan = PairPlan(np.arange(40) % 4, pairing="random", weights=Uniform(), seed=0, chunk_size=32)
    few, many = [plan.chunk(0, chunk, 40) for chunk in range(3)], plan.num_chunks(1000)
    assert [len(pairs) for pairs in few] == [8, 16, 16]
    assert many == 3 + (1000 - 56 + 31) // 32
    for chunk in range(2):
        np.testing.assert_array_equal(few[chunk].parents, plan.chunk(0, chunk, 1000).parents)
    assert len(plan.chunk(0, 2, 1000)) == 32
