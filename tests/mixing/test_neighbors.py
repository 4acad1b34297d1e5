"""Neighbors: exact, approximate, and never the row itself."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixup_hf.mixing import neighbors
from mixup_hf.mixing.neighbors import NOBODY, Neighbors


def by_hand(embeddings: torch.Tensor, rows: np.ndarray, count: int) -> np.ndarray:
    distance = torch.cdist(embeddings.double(), embeddings.double())
    distance.fill_diagonal_(float("inf"))
    return distance[rows].argsort(dim=1, stable=True)[:, :count].numpy()


@given(st.integers(2, 40), st.integers(1, 8), st.integers(1, 50), st.integers(0, 1000))
def test_nearest_is_what_all_distances_say(count: int, k: int, block: int, seed: int) -> None:
    embeddings = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    rows = np.arange(0, count, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "_BLOCK", block)
        found = Neighbors(embeddings).nearest(rows, k)
    assert found.shape == (len(rows), k)
    near = min(k, count - 1)
    np.testing.assert_array_equal(found[:, :near], by_hand(embeddings, rows, near))
    assert (found[:, near:] == NOBODY).all()


def test_exact_copies_are_neighbours_and_the_row_itself_is_not() -> None:
    embeddings = torch.ones(6, 4)
    found = Neighbors(embeddings).nearest(np.array([0, 5]), 3)
    assert 0 not in found[0]
    assert 5 not in found[1]
    assert (found != NOBODY).all()


def test_many_rows_are_searched_by_an_index_that_finds_nearly_all() -> None:
    pytest.importorskip("faiss")
    # In forty cells, of which eight are looked into.
    embeddings = torch.randn(10_000, 8, generator=torch.Generator().manual_seed(0))
    rows = np.arange(0, 10_000, 50)
    found = Neighbors(embeddings, exact_rows=1000).nearest(rows, 5)
    exact = Neighbors(embeddings).nearest(rows, 5)
    hits = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found, exact, strict=True)])
    assert hits > 0.7
    assert not (found == rows[:, None]).any()


def test_without_the_index_library_all_distances_are_computed_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    embeddings = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"pip install 'mixup_hf\[large\]'"):
        found = Neighbors(embeddings, exact_rows=20).nearest(np.arange(30), 3)
    np.testing.assert_array_equal(found, by_hand(embeddings, np.arange(30), 3))
