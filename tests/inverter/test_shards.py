"""Batches side by side: the same sentences in the same order, and threads left as they were."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from tiny import make_inverter, make_llm

from mixup_hf.inverter.engines import _packed as packed
from mixup_hf.inverter.engines import make_engine
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.inverter.prompt import end_ids
from mixup_hf.inverter.sampling import LocalWriter, _side_by_side, _staying


@pytest.fixture
def two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_cut_into_parts_says_what_it_said_in_one(
    temperature: float, two_threads: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, tokenizer = make_llm(), make_inverter().tokenizer
    engine = make_engine(llm, "fast", torch.float32)
    writer = LocalWriter(engine, tokenizer, end_ids(tokenizer, llm))
    prompts = torch.randn(11, 3, 32, generator=torch.Generator().manual_seed(0))
    settings = DecodeSettings(max_new_tokens=6, temperature=temperature)
    streams = [(7, row) for row in range(11)]
    whole = writer.write(prompts, settings, streams)
    assert len(set(whole)) > 5  # rows differ, so their order would show
    monkeypatch.setattr(packed, "_MOST_ROWS", 3)
    assert engine.parts(11) == 4
    assert writer.write(prompts, settings, streams) == whole


@pytest.mark.parametrize(
    ("count", "parts"), [(1, 1), (128, 1), (129, 2), (512, 2), (513, 3), (1025, 5)]
)
def test_a_batch_is_cut_in_two_where_cores_gain_by_it(count: int, parts: int) -> None:
    assert make_engine(make_llm(), "fast", torch.float32).parts(count) == parts


def test_prompts_read_a_few_at_a_time_are_understood_as_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = make_engine(make_llm(), "fast", torch.float32)
    prompts = torch.randn(5, 3, 32, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([3, 1, 4, 1, 5])

    @torch.inference_mode()
    def logits() -> list[torch.Tensor]:
        batch = engine.decoding(5, 4)
        return [batch.start(prompts), batch.step(tokens)]

    at_once = logits()
    monkeypatch.setattr(packed, "_POSITIONS", 7)  # two rows of three positions
    torch.testing.assert_close(logits(), at_once)


def test_memory_of_a_batch_that_has_ended_is_taken_again_but_never_shared() -> None:
    engine = make_engine(make_llm(), "fast", torch.float32)

    def place(batch: Any) -> int:
        return int(batch._keys.data_ptr())

    first, beside = engine.decoding(4, 8), engine.decoding(4, 8)
    places = {place(first), place(beside)}
    assert len(places) == 2
    del first, beside
    smaller, larger = engine.decoding(2, 8), engine.decoding(8, 8)
    assert place(smaller) in places
    assert place(larger) not in places and larger._values.shape[1] == 8


@pytest.mark.parametrize("size", [3, 4, 5])
def test_all_that_are_alive_stay_and_few_move(size: int) -> None:
    alive = torch.tensor([True, False, True, False, False, True])
    rows = _staying(alive, size)
    assert len(rows) == len(set(rows.tolist())) == size
    assert set(alive.nonzero()[:, 0].tolist()) <= set(rows.tolist())
    assert rows[0] == 0 and rows[2] == 2 and rows[1] in (1, 5)


def test_parts_run_at_once_and_leave_the_number_of_threads_alone(two_threads: object) -> None:
    both = threading.Barrier(2, timeout=20)
    inside: list[int] = []

    def run(part: int) -> int:
        both.wait()  # passed only if two parts run at a time
        inside.append(torch.get_num_threads())
        return 10 * part

    assert _side_by_side(run, [0, 1, 2, 3]) == [0, 10, 20, 30]
    assert inside == [1, 1, 1, 1]
    later: list[int] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    assert [torch.get_num_threads(), *later] == [2, 2, 2]


def test_a_part_that_fails_fails_the_whole(two_threads: object) -> None:
    def run(part: int) -> int:
        if part == 1:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return part

    with pytest.raises(RuntimeError, match="not enough memory"):
        _side_by_side(run, [0, 1, 2])
    assert torch.get_num_threads() == 2
