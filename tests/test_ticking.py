"""A progress bar moves while a long batch is decoded."""

from __future__ import annotations

import numpy as np
import torch
from tiny import make_inverter

from mixup_hf import runtime
from mixup_hf.inverter.encoder import TunableEncoder
from mixup_hf.judging.labels.contrastive import tune


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


def test_a_bar_is_redrawn_while_a_committee_is_fitted() -> None:
    """Forty steps of tuning, four times over, used to pass without a sign of life."""
    inverter, bar = make_inverter(), Bar()
    texts = ["the red market", "a blue court", "an old film", "the new bank"]
    with runtime.ticking(bar, seconds=0):
        tune(TunableEncoder(inverter.encoder), texts, np.array([0, 1, 0, 1]), max_steps=3)
    assert bar.drawn == 3
    with runtime.ticking(bar, seconds=0):
        # Layer by layer: a batch of long texts may take many seconds.
        inverter.hidden_states(texts)
        assert bar.drawn - 3 >= 2
        before = bar.drawn
        inverter.encode(texts)
        assert bar.drawn - before == inverter.encoder.model.config.num_hidden_layers


def test_a_bar_is_redrawn_at_most_once_a_second() -> None:
    bar = Bar()
    with runtime.ticking(bar):
        for _ in range(1000):
            runtime.step_done()
    assert bar.drawn == 0


def test_a_bar_with_a_delay_is_not_drawn_before_it() -> None:
    bar = Bar()
    with runtime.ticking(bar, seconds=0, delay=60):
        runtime.step_done()
    assert bar.drawn == 0


def test_memory_is_stated_with_its_unit() -> None:
    number, unit, *_ = runtime.memory_in_use().split()
    assert float(number) > 0
    assert unit == "GiB"
