"""How likely class names are after a text: all of them in one pass, without the LoRA."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import WORDS, make_inverter, make_llm, word_tokenizer

from mixup_hf import Inverter
from mixup_hf.inverter import likelihood
from mixup_hf.inverter.likelihood import label_log_likelihood
from mixup_hf.inverter.lora import load_lora

TEXTS = ["the red market", "a goal", "", "who is the new minister of the city"]
NAMES = ["game", "film star", "film song", "tax", "old party law court"]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_name_sees_the_text_and_itself_and_no_other_name(attention: str) -> None:
    llm, tokenizer = make_llm(), word_tokenizer(classifier=False)
    llm.set_attn_implementation(attention)
    together = label_log_likelihood(llm, tokenizer, TEXTS, NAMES)
    assert together.shape == (4, 5)
    for row, text in enumerate(TEXTS):
        for column, name in enumerate(NAMES):
            alone = label_log_likelihood(llm, tokenizer, [text], [name]).item()
            assert together[row, column].item() == pytest.approx(alone, abs=1e-4)


def test_a_text_is_read_once_however_many_classes_there_are() -> None:
    llm, tokenizer = make_llm(), word_tokenizer(classifier=False)
    names = [f"{WORDS[at % 50]} {WORDS[at // 50]} news" for at in range(150)]
    read: list[tuple[int, ...]] = []
    handle = llm.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    found = label_log_likelihood(llm, tokenizer, TEXTS, names)
    handle.remove()
    assert found.shape == (4, 150) and found.isfinite().all()
    longest = max(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    assert sum(rows for rows, _ in read) == len(TEXTS)
    # The prompt's seven words and its colon, and two tokens of each name.
    assert max(width for _, width in read) <= longest + 8 + 2 * 150


def test_names_of_one_token_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    llm, tokenizer = make_llm(), word_tokenizer(classifier=False)
    monkeypatch.setattr(likelihood, "_BATCH_TOKENS", 30)  # several batches
    found = label_log_likelihood(llm, tokenizer, TEXTS, WORDS)
    question = tokenizer(f"{TEXTS[1]}\nThe topic of this text is:")["input_ids"]
    logits = llm(torch.tensor([question])).logits[0, -1].log_softmax(-1)
    expected = logits[[tokenizer(word)["input_ids"][0] for word in WORDS]]
    torch.testing.assert_close(found[1], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("merge", [True, False])
def test_an_inverter_reads_without_its_lora(
    saved_aligner: Callable[..., Path], merge: bool
) -> None:
    folder = saved_aligner(lora=True)
    parts = make_inverter()
    llm = load_lora(make_llm(), folder, merge=merge)
    inverter = Inverter(parts.encoder, parts.aligner, llm, parts.tokenizer, folder=folder)
    found = inverter.label_log_likelihood(TEXTS, NAMES)
    expected = label_log_likelihood(make_llm(), inverter.tokenizer, TEXTS, NAMES)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    with_lora = label_log_likelihood(inverter._base, inverter.tokenizer, TEXTS, NAMES)
    assert not torch.allclose(with_lora, expected, atol=0.1)


def test_no_texts_have_no_likelihoods() -> None:
    found = label_log_likelihood(make_llm(), word_tokenizer(classifier=False), [], NAMES)
    assert found.shape == (0, 5)
