"""Which rows each batch draws: arithmetic that is checked over whole epochs."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup_hf.training.schedule import Lookahead, Schedule, mixed_per_real


def epoch_of(schedule: Schedule, epoch: int, world: int = 1) -> list[list[int]]:
    """Positions of every batch of an epoch, in the order in which they are trained on."""
    drawn = []
    for start in range(0, schedule.epoch_rows, schedule.batch_size):
        number, rank = divmod(start // schedule.batch_size, world)
        mine = Schedule(**(schedule.__dict__ | {"rank": rank, "world_size": world}))
        real = min(schedule.batch_size, schedule.epoch_rows - start)
        drawn.append(list(mine.span(epoch, number, real)))
    return drawn


@pytest.mark.parametrize(
    ("ratio", "batch_size", "counts"),
    [
        (0.5, 4, [4, 4, 4]),
        (0.5, 5, [5, 5, 2]),
        (0.3, 1, [0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 0, 1]),  # used to be none
        (0.05, 4, [0, 0, 0]),
        (0.1, 3, [0, 0, 1, 0]),  # nine real rows, one mixed: exactly
    ],
)
def test_how_many_rows_each_batch_gets(ratio: float, batch_size: int, counts: list[int]) -> None:
    schedule = Schedule(mixed_per_real(ratio), batch_size, epoch_rows=12)
    assert [len(batch) for batch in epoch_of(schedule, 0)] == counts


@given(
    ratio=st.floats(0.01, 0.9),
    batch_size=st.integers(1, 9),
    rows=st.integers(1, 60),
    every=st.integers(1, 3),
)
def test_every_row_of_a_refill_is_used_exactly_once(
    ratio: float, batch_size: int, rows: int, every: int
) -> None:
    schedule = Schedule(mixed_per_real(ratio), batch_size, rows, refill_every=every)
    for refill in range(3):
        epochs = range(refill * every, (refill + 1) * every)
        drawn = [at for epoch in epochs for batch in epoch_of(schedule, epoch) for at in batch]
        assert drawn == list(range(schedule.size(refill, rows)))
        assert {schedule.refill(epoch) for epoch in epochs} == {refill}


@given(ratio=st.floats(0.01, 0.9), batch_size=st.integers(1, 9))
def test_the_ratio_holds_on_average_for_any_batch_size(ratio: float, batch_size: int) -> None:
    schedule = Schedule(mixed_per_real(ratio), batch_size, epoch_rows=100)
    mixed = sum(len(batch) for epoch in range(10) for batch in epoch_of(schedule, epoch))
    assert abs(mixed - 1000 * ratio / (1 - ratio)) < 1.01


@given(ratio=st.floats(0.01, 0.9), batch_size=st.integers(1, 9), world=st.integers(1, 4))
def test_several_processes_take_the_batches_of_one(
    ratio: float, batch_size: int, world: int
) -> None:
    schedule = Schedule(mixed_per_real(ratio), batch_size, epoch_rows=4 * world * batch_size)
    assert epoch_of(schedule, 1, world) == epoch_of(schedule, 1)


@given(
    ratio=st.floats(0.01, 0.9),
    batch_size=st.integers(1, 9),
    rows=st.integers(1, 60),
    epoch=st.integers(0, 4),
)
def test_what_is_needed_by_a_batch_covers_what_it_draws(
    ratio: float, batch_size: int, rows: int, epoch: int
) -> None:
    schedule = Schedule(mixed_per_real(ratio), batch_size, rows, refill_every=2)
    for number, batch in enumerate(epoch_of(schedule, epoch), start=1):
        if batch:
            assert batch[-1] < schedule.drawn(epoch, number)
            assert batch[-1] < schedule.drawn_by_end(epoch // 2, epoch, number)
    assert schedule.drawn(epoch, 1000) == schedule.drawn(epoch, rows)  # no more than an epoch


def test_a_run_that_ends_early_needs_none_of_the_next_refill() -> None:
    schedule = Schedule(Fraction(1), batch_size=4, epoch_rows=10)
    assert schedule.drawn_by_end(0, 0, 2) == 8
    assert schedule.drawn_by_end(1, 0, 3) == 0
    assert schedule.drawn_by_end(1, 0, 4) == 4


@pytest.mark.parametrize(("steps", "batches"), [(0, 0), (2, 8), (3, 9), (4, 13), (6, 18)])
def test_steps_are_turned_into_batches_as_the_trainer_does(steps: int, batches: int) -> None:
    assert Lookahead(accumulation=4, prefetched=1, epoch_batches=9).taken(steps) == batches
