from __future__ import annotations

import pytest
from tiny import make_producer, make_rows

from mixup_hf.generation.replay import RecordedRows


def test_refills_continue_where_the_last_ended_and_start_over() -> None:
    texts, _ = make_rows(12)
    rows = make_producer(12).produce(0, 6)
    recorded = RecordedRows(texts, rows)
    asked = [recorded.produce(refill, 4) for refill in range(3)]
    order = [rows.index(row) for refill in asked for row in refill]
    assert order == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert recorded.produce(1, 100) == rows


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one generated row"):
        RecordedRows(["a"], [])


def test_refills_of_unequal_size_go_on_where_the_last_one_ended() -> None:
    texts, _ = make_rows(12)
    rows = make_producer(12).produce(0, 5)
    recorded = RecordedRows(texts, rows)
    sizes = [(0, 3), (3, 1), (4, 2)]
    asked = [
        recorded.produce(refill, count, before=before)
        for refill, (before, count) in enumerate(sizes)
    ]
    assert [rows.index(row) for refill in asked for row in refill] == [0, 1, 2, 3, 4, 0]
