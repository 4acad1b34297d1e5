"""Hidden states of the inverter's LLM."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tiny import make_inverter, make_llm, word_tokenizer

from mixup_hf import Inverter
from mixup_hf.inverter.lora import load_lora
from mixup_hf.inverter.states import hidden_states
from mixup_hf.types import PAIR_MARK

TEXTS = ["the red market", "a goal", "who is the new minister of the city"]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights as large as these are not read well in bf16."""
    monkeypatch.setattr("mixup_hf.inverter.states.fast_autocast", lambda device: nullcontext())


def test_states_are_those_of_one_text_at_a_time() -> None:
    llm, tokenizer = make_llm(), word_tokenizer(classifier=False)
    found = hidden_states(llm, tokenizer, TEXTS, layer=1, batch_size=2)
    assert found.shape == (3, 32)
    assert found.dtype == torch.float32
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        expected = llm(ids, output_hidden_states=True).hidden_states[1][0, -1]
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)


def test_the_template_is_read_and_a_long_text_does_not_push_it_out() -> None:
    llm, tokenizer = make_llm(), word_tokenizer(classifier=False)
    long = "the market " * 80
    found = hidden_states(llm, tokenizer, [long], layer=2, template="what is {text} for")
    read = tokenizer(f"what is {'the market ' * 48} for")["input_ids"]
    states = []
    llm.model.layers[1].register_forward_hook(lambda *parts: states.append(parts[2]))
    llm(torch.tensor([read]))
    expected = states[0][0] if isinstance(states[0], tuple) else states[0]
    torch.testing.assert_close(found[0], expected[0, -1], atol=1e-4, rtol=1e-4)


def test_an_inverter_reads_at_two_thirds_of_its_layers() -> None:
    inverter = make_inverter()
    here = inverter.hidden_states(TEXTS)
    torch.testing.assert_close(here, inverter.hidden_states(TEXTS, layer=1))
    assert not torch.allclose(here, inverter.hidden_states(TEXTS, layer=2))
    with pytest.raises(ValueError, match=r"`layer` must lie in \[1, 2\], but got 3"):
        inverter.hidden_states(TEXTS, layer=3)


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
    hidden_states(llm, tokenizer, ["the red market"], layer=1)
    handle.remove()
    assert elsewhere[0].shape[:2] == (1, 2)
    assert not llm.model.layers[0]._forward_hooks


@pytest.mark.parametrize("merge", [True, False])
def test_an_inverter_reads_without_its_lora(
    saved_aligner: Callable[..., Path], merge: bool
) -> None:
    folder = saved_aligner(lora=True)
    parts = make_inverter()
    llm = load_lora(make_llm(), folder, merge=merge)
    inverter = Inverter(parts.encoder, parts.aligner, llm, parts.tokenizer, folder=folder)
    found = inverter.hidden_states(TEXTS, layer=2)
    expected = hidden_states(make_llm(), inverter.tokenizer, TEXTS, layer=2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    after = hidden_states(inverter._base, inverter.tokenizer, TEXTS, layer=2)
    assert not torch.allclose(after, expected, atol=0.1)  # it is back
