"""Hidden states of the inverter's LLM."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_inverter, make_llm, word_tokenizer

from mixup_hf import Inverter
from mixup_hf.inverter.lora import load_lora
from mixup_hf.inverter.states import TEMPLATE, hidden_states
from mixup_hf.types import PAIR_MARK

TEXTS = ["the red market", "a goal", "who is the new minister of the city"]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights as large as these are not read well in bf16."""
    monkeypatch.setattr("mixup_hf.inverter.states.fast_autocast", lambda device: nullcontext())


def expected_states(llm: Any, tokenizer: Any, text: str) -> torch.Tensor:
    """Layer 1 of 2 at the end of the text, layer 2 at the end of the prompt: (2, H)."""
    before, after = TEMPLATE.split("{text}")
    start, content, end = (tokenizer(part)["input_ids"] for part in (before, text, after))
    states = []
    handles = [
        each.register_forward_hook(lambda *parts: states.append(parts[2]))
        for each in llm.model.layers
    ]
    llm(torch.tensor([start + content + end]))
    for handle in handles:
        handle.remove()
    middle, late = (each[0] if isinstance(each, tuple) else each for each in states)
    return torch.stack([middle[0, len(start + content) - 1], late[0, -1]])


def test_states_are_those_of_one_text_at_a_time() -> None:
    llm, tokenizer = make_llm(), word_tokenizer(classifier=False)
    found = hidden_states(llm, tokenizer, TEXTS, batch_size=2)
    assert found.shape == (3, 2, 32)
    assert found.dtype == torch.float32
    for row, text in enumerate(TEXTS):
        expected = expected_states(llm, tokenizer, text)
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)


def test_a_long_text_does_not_push_the_prompt_out() -> None:
    llm, tokenizer = make_llm(), word_tokenizer(classifier=False)
    found = hidden_states(llm, tokenizer, ["the market " * 80])
    expected = expected_states(llm, tokenizer, "the market " * 48)
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=1e-4)


def test_an_llm_of_one_layer_has_both_states() -> None:
    llm, tokenizer = make_llm(), word_tokenizer(classifier=False)
    llm.model.layers = llm.model.layers[:1]
    found = hidden_states(llm, tokenizer, TEXTS)
    assert found.shape == (3, 2, 32)
    assert not torch.allclose(found[:, 0], found[:, 1])


def test_both_sides_of_a_pair_are_read() -> None:
    inverter = make_inverter()
    pair = inverter.hidden_states([f"the red{PAIR_MARK}market", "the red\nmarket", "the red"])
    torch.testing.assert_close(pair[0], pair[1])
    assert not torch.allclose(pair[0], pair[2])


def test_a_text_without_tokens_has_a_state() -> None:
    assert make_inverter().hidden_states(["", "the"]).isfinite().all()


def test_the_model_is_left_as_it_was_and_other_threads_go_on() -> None:
    """A hook ends the pass of one thread; a thread that decodes meanwhile must not notice."""
    llm, tokenizer = make_llm(), word_tokenizer(classifier=False)
    elsewhere: list[torch.Tensor] = []

    def decode() -> None:
        elsewhere.append(llm(torch.tensor([[7, 8]])).logits)

    def meanwhile(*_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=decode)
            thread.start()
            thread.join()

    handle = llm.model.layers[0].register_forward_pre_hook(meanwhile)
    hidden_states(llm, tokenizer, ["the red market"])
    handle.remove()
    assert elsewhere[0].shape[:2] == (1, 2)
    assert not any(layer._forward_hooks for layer in llm.model.layers)


@pytest.mark.parametrize("merge", [True, False])
def test_an_inverter_reads_without_its_lora(
    saved_aligner: Callable[..., Path], merge: bool
) -> None:
    folder = saved_aligner(lora=True)
    parts = make_inverter()
    llm = load_lora(make_llm(), folder, merge=merge)
    inverter = Inverter(parts.encoder, parts.aligner, llm, parts.tokenizer, folder=folder)
    found = inverter.hidden_states(TEXTS)
    expected = hidden_states(make_llm(), inverter.tokenizer, TEXTS)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    after = hidden_states(inverter._base, inverter.tokenizer, TEXTS)
    assert not torch.allclose(after, expected, atol=0.1)  # it is back
