"""Curricula: exact arithmetic of which places of a run get a generated row."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixup_hf import MixupConfig, registry
from mixup_hf.errors import InvalidInput
from mixup_hf.training.curriculum import RealRows, parse_curriculum
from mixup_hf.training.schedule import Lookahead, Schedule, mixed_per_real

SPECS = ["constant", "first", "first:0.3", "last:0.7", "ramp", "ramp:1,0", "ramp:0.2,0.6"]


def over(schedule: Schedule, spec: str, epochs: int, warmup: int = 0) -> Schedule:
    batches = -(-schedule.epoch_rows // (schedule.batch_size * schedule.world_size))
    return schedule.over(parse_curriculum(spec), epochs * batches, warmup)


def batches_of(schedule: Schedule, epochs: int) -> list[tuple[range, range]]:
    """Positions drawn and left out by every batch of one process."""
    found = []
    for epoch in range(epochs):
        for number, start in enumerate(range(0, schedule.epoch_rows, schedule.batch_size)):
            real = min(schedule.batch_size, schedule.epoch_rows - start)
            batch = (epoch, number, real)
            found.append((schedule.span(*batch), schedule.left_out(*batch)))
    return found


def counts(spec: str, *, ratio: float = 0.5, rows: int = 8, epochs: int = 2) -> list[int]:
    schedule = over(Schedule(mixed_per_real(ratio), 4, rows), spec, epochs)
    return [len(drawn) for drawn, _ in batches_of(schedule, epochs)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("constant", [4, 4, 4, 4]),
        ("first:0.5", [4, 4, 0, 0]),
        ("first:0.375", [4, 2, 0, 0]),
        ("last:0.25", [0, 0, 0, 4]),
        ("ramp", [0, 2, 2, 4]),  # 16 places: floor(k^2 / 32) after k of them: 0, 2, 4, 8
        ("ramp:1,0", [3, 3, 1, 1]),  # floor(k - k^2 / 32): 3.5, 6, 7.5, 8
        ("ramp:0.5,0.5", [2, 2, 2, 2]),
        ("first:0", [0, 0, 0, 0]),
    ],
)
def test_how_many_rows_each_batch_of_a_run_gets(spec: str, expected: list[int]) -> None:
    assert counts(spec) == expected


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("progress", [Fraction(1, 7), Fraction(2, 3), Fraction(1)])
def test_the_cumulative_part_is_the_integral_of_the_part(spec: str, progress: Fraction) -> None:
    curriculum = registry.build("curriculum", spec)
    steps = 1000
    middles = [progress * (2 * step + 1) / (2 * steps) for step in range(steps)]
    integral = sum(curriculum.part(each) for each in middles) * progress / steps
    assert abs(integral - curriculum.cumulative(progress)) <= Fraction(1, steps)
    assert all(0 <= curriculum.part(each) <= 1 for each in middles)


@given(
    spec=st.sampled_from(SPECS),
    ratio=st.floats(0.01, 0.9),
    batch_size=st.integers(1, 9),
    rows=st.integers(1, 40),
    every=st.integers(1, 3),
    epochs=st.integers(1, 4),
)
def test_every_place_gets_one_row_generated_or_left_out(
    spec: str, ratio: float, batch_size: int, rows: int, every: int, epochs: int
) -> None:
    plain = Schedule(mixed_per_real(ratio), batch_size, rows, refill_every=every)
    schedule = over(plain, spec, epochs)
    before = batches_of(plain, epochs)
    after = batches_of(schedule, epochs)
    assert [len(drawn) for drawn, _ in before] == [sum(map(len, each)) for each in after]
    left_out = [at for _, empty in after for at in empty]
    assert left_out == list(range(len(left_out)))
    share = registry.build("curriculum", spec).cumulative(Fraction(1))
    drawn = sum(len(each) for each, _ in after)
    assert abs(drawn - epochs * rows * plain.ratio * share) < 2


@given(
    spec=st.sampled_from(SPECS),
    ratio=st.floats(0.01, 0.9),
    batch_size=st.integers(1, 9),
    rows=st.integers(1, 40),
    every=st.integers(1, 3),
)
def test_a_refill_holds_what_its_epochs_draw(
    spec: str, ratio: float, batch_size: int, rows: int, every: int
) -> None:
    epochs = 2 * every
    plain = Schedule(mixed_per_real(ratio), batch_size, rows, refill_every=every)
    schedule = over(plain, spec, epochs)
    batches = batches_of(schedule, epochs)
    for refill in range(2):
        half = batches[refill * len(batches) // 2 : (refill + 1) * len(batches) // 2]
        drawn = [at for each, _ in half for at in each]
        assert drawn == list(range(schedule.size(refill, rows)))
        assert schedule.drawn_by_end(refill, 0, len(batches)) >= len(drawn)


@pytest.mark.parametrize(
    ("spec", "size"), [("first:0.5", 8), ("first:0.25", 6), ("last:0.25", 6), ("constant", 8)]
)
def test_a_pool_that_is_filled_once_holds_no_row_that_is_never_used(spec: str, size: int) -> None:
    """Three epochs of 8 places; 24 in all."""
    once = Schedule(mixed_per_real(0.5), 4, 8, refill_every=0)
    assert over(once, spec, 3).size(0, 8) == size


def test_a_stream_is_counted_over_its_steps() -> None:
    stream = Schedule(mixed_per_real(0.5), 4, epoch_rows=1000, sized=False)
    batches = Lookahead(accumulation=2, prefetched=1).taken(3)
    schedule = stream.over(parse_curriculum("first:0.5"), batches, 0)
    assert [len(schedule.span(0, batch, 4)) for batch in range(6)] == [4, 4, 4, 0, 0, 0]
    assert schedule.size(0, 1000) == 12


@given(spec=st.sampled_from(SPECS), world=st.integers(1, 4), batch_size=st.integers(1, 5))
def test_several_processes_take_the_batches_of_one(spec: str, world: int, batch_size: int) -> None:
    rows = 4 * world * batch_size
    one = over(Schedule(Fraction(1), batch_size, rows), spec, 2)
    together = []
    for number in range(4):
        for rank in range(world):
            mine = over(Schedule(Fraction(1), batch_size, rows, 1, rank, world), spec, 2)
            batch = (1, number, batch_size)
            together.append((mine.span(*batch), mine.left_out(*batch)))
    assert together == batches_of(one, 2)[len(together) :]


def test_progress_counts_the_epochs_before_mixing_began() -> None:
    """Four epochs, the first without mixing: half of the run is one mixing epoch."""
    schedule = over(Schedule(Fraction(1), 4, 8), "first:0.5", 4, warmup=1)
    assert [len(drawn) for drawn, _ in batches_of(schedule, 3)] == [4, 4, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("never", "`curriculum` must be one of"),
        ("first:1.5", r"`curriculum.share` must lie in .0.0, 1.0."),
        ("ramp:0,2", r"`curriculum.end` must lie in .0.0, 1.0."),
        ("constant:1", "give at most 0 value"),
    ],
)
def test_a_bad_curriculum_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        MixupConfig(curriculum=spec)


def test_training_rows_are_drawn_in_whole_permutations() -> None:
    rows = RealRows(["a", "b", "c"], torch.eye(3), seed=4)
    drawn = rows.at(range(9))
    for start in range(0, 9, 3):
        assert sorted(row.text for row in drawn[start : start + 3]) == ["a", "b", "c"]
    assert all(row.hard_label == "abc".index(row.text) for row in drawn)
    assert [row.text for row in rows.at(range(4, 6))] == [row.text for row in drawn[4:6]]
    other = RealRows(["a", "b", "c"], torch.eye(3), seed=5).at(range(9))
    assert [row.text for row in other] != [row.text for row in drawn]


def test_training_rows_make_up_for_what_rare_classes_lack() -> None:
    targets = torch.eye(2)[[0] * 9 + [1] * 3]
    rows = RealRows([str(at) for at in range(12)], targets, seed=4, balance=0.5)
    drawn = rows.at(range(24))
    for start in (0, 12):
        turn = drawn[start : start + 12]
        assert sum(row.hard_label for row in turn) == 9  # beside 9 and 3 real ones: 12 each
        assert len({row.text for row in turn if row.hard_label == 0}) == 3
    assert rows.at(range(17, 20)) == drawn[17:20]
