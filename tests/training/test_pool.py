from __future__ import annotations

import pickle
import time
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mixup_hf import MixedExample, MixupPool


def make_rows(count: int, epoch: int = 0, start: int = 0) -> list[MixedExample]:
    return [
        MixedExample(
            f"text {epoch} {at}", (0.5, 0.5), 0.5, (at, 0), (0.5, 0.5), 0, epoch, at, "f00d"
        )
        for at in range(start, start + count)
    ]


def make_pool(folder: Path, count: int = 6, seed: int = 0) -> MixupPool:
    pool = MixupPool(folder, seed)
    pool.begin_epoch(0, refill=0, size=count)
    pool.append(make_rows(count))
    return pool


@pytest.fixture
def pool(tmp_path: Path) -> MixupPool:
    return make_pool(tmp_path)


def test_a_new_pool_is_empty_and_says_so(tmp_path: Path) -> None:
    pool = MixupPool(tmp_path, 0)
    assert (pool.refill, len(pool)) == (-1, 0)
    with pytest.raises(RuntimeError, match="nothing has been published"):
        pool.draw(range(1))
    with pytest.raises(RuntimeError, match="call `begin_epoch` first"):
        pool.append(make_rows(1))


def test_rows_are_read_piece_by_piece_as_they_are_published(tmp_path: Path) -> None:
    pool = MixupPool(tmp_path / "not" / "there" / "yet", 0)
    pool.begin_epoch(0, refill=0, size=5)
    pool.append(make_rows(3))
    assert [row for _, row in pool.draw(range(1, 3))] == make_rows(5)[1:3]
    with pytest.raises(RuntimeError, match="needs row 4 of refill 0, but only 3 of 5"):
        pool.draw(range(2, 5))
    pool.append(make_rows(2, start=3))
    assert list(pool.rows()) == make_rows(5)
    pool.begin_epoch(1, refill=1, size=2)
    assert len(pool) == 0
    pool.append(make_rows(2, epoch=1))
    assert [row for _, row in pool.draw(range(2))] == make_rows(2, epoch=1)
    assert list(pool.rows(0)) == make_rows(5)


def test_a_pool_goes_on_from_what_is_on_disk(pool: MixupPool, tmp_path: Path) -> None:
    again = MixupPool(tmp_path, 0)
    again.begin_epoch(0, refill=0, size=9)
    assert len(again) == 6
    again.append(make_rows(3, start=6))
    assert list(again.rows()) == make_rows(9)


def test_a_segment_that_was_not_completed_does_not_count(pool: MixupPool, tmp_path: Path) -> None:
    broken = [replace(make_rows(1)[0], text=object())]  # type: ignore[arg-type]
    pool.begin_epoch(1, refill=1, size=3)
    with pytest.raises(Exception, match="object"):
        pool.append(broken)
    assert (len(pool), list(pool.rows())) == (0, [])
    pool.append(make_rows(3, epoch=1))
    assert list(pool.rows()) == make_rows(3, epoch=1)


def test_nothing_cannot_be_published(pool: MixupPool) -> None:
    with pytest.raises(ValueError, match="at least one"):
        pool.append([])


def test_an_empty_refill_gives_no_rows(tmp_path: Path) -> None:
    pool = MixupPool(tmp_path, 0)
    pool.begin_epoch(0, refill=0, size=0)
    assert pool.draw(range(3)) == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> MixupPool:
    """For tests that only draw."""
    return make_pool(tmp_path_factory.mktemp("pool"))


@given(sizes=st.lists(st.integers(0, 9), max_size=12))
def test_every_row_is_used_before_one_is_used_twice(shared: MixupPool, sizes: list[int]) -> None:
    drawn: list[int] = []
    for size in sizes:
        drawn += [at for at, _ in shared.draw(range(len(drawn), len(drawn) + size))]
    assert drawn[:6] == list(range(6))[: len(drawn)]
    for start in range(0, len(drawn), 6):
        turn = drawn[start : start + 6]
        assert len(set(turn)) == len(turn)


def test_rows_come_again_in_an_order_of_the_seed(tmp_path: Path) -> None:
    orders = [
        [at for at, _ in make_pool(tmp_path / str(number), 50, seed).draw(range(50, 150))]
        for number, seed in enumerate([0, 0, 1])
    ]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:50] != orders[0][50:]


def test_a_batch_costs_the_same_from_any_pool(tmp_path: Path) -> None:
    """It used to permute the whole pool for each batch: 15 ms at 100,000 rows."""
    pool = make_pool(tmp_path, 1000)
    pool.begin_epoch(1, refill=1, size=1_000_000)
    pool.append(make_rows(100, epoch=1))
    pool.draw(range(1))
    started = time.perf_counter()
    for batch in range(10):
        pool.draw(range(batch, batch + 8))
    assert (time.perf_counter() - started) / 10 < 0.005


def test_a_spawned_worker_gets_the_handle_not_the_rows(pool: MixupPool) -> None:
    pool.draw(range(6))
    sent = bytes(ForkingPickler.dumps(pool))
    assert b"text 0 3" not in sent
    received = pickle.loads(sent)
    assert list(received.rows()) == list(pool.rows())
    pool.begin_epoch(1, refill=1, size=2)
    pool.append(make_rows(2, epoch=1))
    assert [row for _, row in received.draw(range(2))] == make_rows(2, epoch=1)


class _Drawing:
    """A collator that shows which refill its rows come from."""

    def __init__(self, pool: MixupPool) -> None:
        self.pool = pool

    def __call__(self, batch: list[int]) -> list[str]:
        return [row.text for _, row in self.pool.draw(range(batch[0], batch[0] + 2))]


def test_a_worker_that_lives_on_sees_the_next_refill(pool: MixupPool) -> None:
    loader = DataLoader(
        [1, 2],
        batch_size=1,
        num_workers=1,
        persistent_workers=True,
        collate_fn=_Drawing(pool),
        multiprocessing_context="fork",
    )
    for epoch in (0, 1):
        if epoch == 1:
            pool.begin_epoch(1, refill=1, size=6)
            pool.append(make_rows(6, epoch=1))
        here = [_Drawing(pool)([number]) for number in (1, 2)]
        assert list(loader) == here
        assert all(text.startswith(f"text {epoch} ") for batch in here for text in batch)
