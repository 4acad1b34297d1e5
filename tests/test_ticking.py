"""A progress bar moves while a long batch is decoded."""

from __future__ import annotations

import torch
from tiny import make_inverter

from mixup_hf import runtime


class Bar:
    def __init__(self) -> None:
        self.drawn = 0

    def refresh(self) -> None:
        self.drawn += 1


def test_a_bar_is_redrawn_while_a_batch_is_decoded_and_no_longer() -> None:
    inverter, bar = make_inverter(), Bar()
    mixes = inverter.encode(["the red market", "a blue court"])
    with runtime.ticking(bar, seconds=0):
        inverter.invert(mixes, max_new_tokens=6, temperature=0, progress=False)
    drawn = bar.drawn
    assert drawn >= 2
    inverter.invert(torch.zeros_like(mixes), max_new_tokens=6, temperature=0, progress=False)
    assert bar.drawn == drawn


def test_a_bar_is_redrawn_at_most_once_a_second() -> None:
    bar = Bar()
    with runtime.ticking(bar):
        for _ in range(1000):
            runtime.decoding_step_done()
    assert bar.drawn == 0


def test_memory_is_stated_with_its_unit() -> None:
    number, unit, *_ = runtime.memory_in_use().split()
    assert float(number) > 0
    assert unit == "GiB"
