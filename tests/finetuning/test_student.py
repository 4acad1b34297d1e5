"""The model that is fine-tuned: which of its weights are trained, and how it pads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import make_classifier, make_llm, word_tokenizer

from mixup_hf.config import LoraConfig
from mixup_hf.data.targets import read_targets
from mixup_hf.finetuning.student import load_student, load_tokenizer

TARGETS = read_targets(["a", "b", "c"], None, None)


def save_decoder(folder: Path) -> Path:
    model = make_llm()
    model.config.pad_token_id = None
    model.generation_config.pad_token_id = None
    model.save_pretrained(folder)
    tokenizer = word_tokenizer(classifier=False)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


def test_embeddings_can_be_left_as_they_are(tmp_path: Path) -> None:
    make_classifier().save_pretrained(tmp_path)
    tokenizer = word_tokenizer(classifier=True)
    for frozen in (False, True):
        model = load_student(tmp_path, TARGETS, tokenizer, freeze_embeddings=frozen)
        assert model.get_input_embeddings().weight.requires_grad is not frozen
        assert model.classifier.weight.requires_grad
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_a_lora_and_the_head_are_trained(tmp_path: Path) -> None:
    folder = save_decoder(tmp_path)
    tokenizer = load_tokenizer(folder)
    model = load_student(folder, TARGETS, tokenizer, lora=LoraConfig(r=2))
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert any(".lora_A." in name for name in trained)
    assert any("score" in name for name in trained)
    assert all(".lora_" in name or "score" in name for name in trained)


def test_a_decoder_without_padding_token_classifies_texts_of_different_length(
    tmp_path: Path,
) -> None:
    folder = save_decoder(tmp_path)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token == tokenizer.eos_token
    model = load_student(folder, TARGETS, tokenizer).eval()
    with torch.no_grad():
        both = model(**tokenizer(["the bank", "a film star"], padding=True, return_tensors="pt"))
        alone = model(**tokenizer(["the bank"], return_tensors="pt"))
    assert torch.allclose(both.logits[0], alone.logits[0], atol=1e-5)


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(classifier=False)
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="neither a padding nor an end-of-sequence token"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("lora", [None, LoraConfig(r=2)], ids=["all weights", "lora"])
def test_what_is_trained_is_float32_however_it_is_stored(
    lora: LoraConfig | None, tmp_path: Path
) -> None:
    folder = save_decoder(tmp_path)
    make_llm().bfloat16().save_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    model = load_student(folder, TARGETS, tokenizer, lora=lora)
    trained = [each for each in model.parameters() if each.requires_grad]
    assert {each.dtype for each in trained} == {torch.float32}
    frozen = {each.dtype for each in model.parameters() if not each.requires_grad}
    assert frozen == ({torch.bfloat16} if lora is not None else set())
    inputs = tokenizer(["the bank", "a film star"], padding=True, return_tensors="pt")
    model(**inputs).logits.float().logsumexp(-1).sum().backward()
    assert all(each.grad is None or each.grad.dtype == torch.float32 for each in trained)
    assert any(each.grad is not None and each.grad.abs().sum() > 0 for each in trained)
