from __future__ import annotations

import json
import pickle
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mixup_hf import MixedExample, MixupPool
from mixup_hf.training.pool import read_rows, write_rows


def make_rows(count: int, epoch: int = 0) -> list[MixedExample]:
    return [
        MixedExample(
            f"text {epoch} {at}", (0.5, 0.5), 0.5, (at, 0), (0.5, 0.5), 0, epoch, at, "f00d"
        )
        for at in range(count)
    ]


def make_pool(folder: Path, count: int = 6, seed: int = 0) -> MixupPool:
    pool = MixupPool(folder, seed)
    pool.write(0, make_rows(count))
    pool.publish(0)
    return pool


def positions(pool: MixupPool, keys: list[bytes], count: int = 4) -> list[int]:
    return [at for at, _ in pool.draw(keys, count)]


@pytest.fixture
def pool(tmp_path: Path) -> MixupPool:
    return make_pool(tmp_path)


def test_a_new_pool_is_empty_and_says_so(tmp_path: Path) -> None:
    pool = MixupPool(tmp_path, 0)
    assert (pool.refill, len(pool)) == (-1, 0)
    with pytest.raises(RuntimeError, match="nothing has been published"):
        pool.draw([b"a"], 1)


def test_a_written_refill_is_drawn_from_once_it_is_published(tmp_path: Path) -> None:
    pool = MixupPool(tmp_path / "not" / "there" / "yet", 0)
    pool.write(0, make_rows(3))
    assert pool.refill == -1
    pool.publish(0)
    assert (pool.refill, len(pool)) == (0, 3)
    assert pool.rows() == make_rows(3)
    pool.write(1, make_rows(5, epoch=1))
    assert pool.rows() == make_rows(3)
    pool.publish(1)
    assert pool.rows() == make_rows(5, epoch=1)


def test_an_unwritten_refill_cannot_be_published(pool: MixupPool) -> None:
    with pytest.raises(FileNotFoundError, match="write it first"):
        pool.publish(1)
    assert pool.refill == 0


def test_an_empty_refill_cannot_be_written(pool: MixupPool) -> None:
    with pytest.raises(ValueError, match="at least one mixed row"):
        pool.write(1, [])


def test_a_write_that_fails_leaves_the_file_as_it_was(pool: MixupPool, tmp_path: Path) -> None:
    broken = [*make_rows(2, epoch=9), replace(make_rows(1)[0], text=object())]  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pool.write(0, broken)
    assert read_rows(pool.path(0)) == make_rows(6)


def test_finished_writes_leave_no_other_files(pool: MixupPool, tmp_path: Path) -> None:
    assert [path.name for path in tmp_path.iterdir()] == [pool.path(0).name]


def test_a_draw_gives_rows_with_their_position(pool: MixupPool) -> None:
    for at, row in pool.draw([b"a"], 5):
        assert row == make_rows(6)[at]
    assert pool.draw([b"a"], 0) == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> MixupPool:
    """For tests that only draw."""
    return make_pool(tmp_path_factory.mktemp("pool"))


@given(keys=st.lists(st.binary(max_size=6), min_size=1, max_size=5), count=st.integers(1, 20))
def test_no_row_comes_again_before_all_have_come(
    shared: MixupPool, keys: list[bytes], count: int
) -> None:
    drawn = positions(shared, keys, count)
    assert len(drawn) == count
    for start in range(0, count, len(shared)):
        turn = drawn[start : start + len(shared)]
        assert len(set(turn)) == len(turn)


@given(data=st.data(), keys=st.lists(st.binary(max_size=6), min_size=2, max_size=6))
def test_the_order_of_the_batch_does_not_matter(
    shared: MixupPool, data: st.DataObject, keys: list[bytes]
) -> None:
    assert positions(shared, keys) == positions(shared, data.draw(st.permutations(keys)))


def test_a_batch_draws_the_same_rows_whatever_was_drawn_before(tmp_path: Path) -> None:
    one, two = make_pool(tmp_path / "one", 50), make_pool(tmp_path / "two", 50)
    for number in range(5):
        two.draw([b"other", bytes([number])], 3)
    assert one.draw([b"a", b"b"], 8) == two.draw([b"a", b"b"], 8)


def test_batch_seed_and_refill_each_change_what_is_drawn(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "one", 1000)
    drawn = [positions(pool, [b"a"], 8), positions(pool, [b"b"], 8)]
    drawn.append(positions(make_pool(tmp_path / "two", 1000, seed=1), [b"a"], 8))
    pool.write(1, make_rows(1000, epoch=1))
    pool.publish(1)
    drawn.append(positions(pool, [b"a"], 8))
    assert len({tuple(each) for each in drawn}) == 4


def test_a_spawned_worker_gets_the_handle_not_the_rows(pool: MixupPool) -> None:
    pool.rows()
    sent = bytes(ForkingPickler.dumps(pool))
    assert b"text 0 3" not in sent
    received = pickle.loads(sent)
    assert received.rows() == pool.rows()
    pool.write(1, make_rows(2, epoch=1))
    pool.publish(1)
    assert received.rows() == make_rows(2, epoch=1)


class _Drawing:
    """A collator that says which refill its rows come from."""

    def __init__(self, pool: MixupPool) -> None:
        self.pool = pool

    def __call__(self, batch: list[int]) -> list[str]:
        return [row.text for _, row in self.pool.draw([bytes(batch)], 2)]


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
            pool.write(1, make_rows(6, epoch=1))
            pool.publish(1)
        here = [_Drawing(pool)([number]) for number in (1, 2)]
        assert list(loader) == here
        assert all(text.startswith(f"text {epoch} ") for batch in here for text in batch)


@pytest.mark.parametrize("text", ["plain", "“quoted” — naïve", "a\nb\r\nc", "a\u2028b", "a\x85b"])
def test_any_text_survives_the_file(tmp_path: Path, text: str) -> None:
    rows = [replace(make_rows(1)[0], text=text), *make_rows(2)]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize("damage", ["{", "[1, 2]", "{}", "3", ""])
def test_a_damaged_line_is_named_with_the_way_out(tmp_path: Path, damage: str) -> None:
    good = json.dumps(make_rows(1)[0].to_json())
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{good}\n{damage}\n{good}\n")
    with pytest.raises(ValueError, match=r"line 2, is no mixed row .*Delete the file"):
        read_rows(path)
