"""Tiny random models and fakes, so that tests run in seconds and download nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from mixup_hf.generation.generator import Producer
from mixup_hf.inverter.aligner import Aligner, AlignerConfig
from mixup_hf.inverter.encoder import FrozenEncoder
from mixup_hf.inverter.model import Inverter
from mixup_hf.mixing.pairing import PairPlan
from mixup_hf.mixing.weights.beta import Beta

WORDS = [
    "the",
    "a",
    "of",
    "to",
    "in",
    "on",
    "for",
    "with",
    "and",
    "is",
    "was",
    "what",
    "who",
    "when",
    "where",
    "how",
    "new",
    "old",
    "big",
    "small",
    "good",
    "bad",
    "red",
    "blue",
    "green",
    "market",
    "bank",
    "profit",
    "share",
    "price",
    "game",
    "match",
    "team",
    "goal",
    "win",
    "player",
    "film",
    "star",
    "music",
    "song",
    "actor",
    "phone",
    "software",
    "web",
    "computer",
    "vote",
    "party",
    "minister",
    "law",
    "tax",
    "court",
    "city",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<eos>"]


def word_tokenizer(*, classifier: bool) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: BERT-like for classifiers, bare for language models."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    if not classifier:
        return PreTrainedTokenizerFast(
            tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", eos_token="<eos>"
        )
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=64,
    )


def bert_config(**settings: Any) -> BertConfig:
    sizes = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    return BertConfig(**(sizes | settings))


def make_classifier(num_labels: int = 3, *, dropout: float = 0.1, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        bert_config(
            num_labels=num_labels,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    )


def make_llm(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(SPECIAL) + len(WORDS),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=128,
            eos_token_id=SPECIAL.index("<eos>"),
            pad_token_id=0,
            bos_token_id=None,
            initializer_range=0.4,
            tie_word_embeddings=True,
        )
    ).eval()


def make_encoder(seed: int = 0) -> FrozenEncoder:
    torch.manual_seed(seed)
    return FrozenEncoder(BertModel(bert_config()), word_tokenizer(classifier=True))


def make_inverter(**config: Any) -> Inverter:
    encoder, llm = make_encoder(), make_llm()
    settings = {
        "embedding_dim": 16,
        "llm_dim": 32,
        "projector_width": 24,
        "num_soft_tokens": 3,
        "base_grid": None,
        "embedding_rms": 0.4,
    }
    torch.manual_seed(1)
    aligner = Aligner(AlignerConfig(**(settings | config)))
    return Inverter(
        encoder, aligner, llm, word_tokenizer(classifier=False), name="tiny", fingerprint="f00d"
    )


def with_random_lora(llm: Any, seed: int = 2) -> Any:
    """The LLM with a LoRA that really changes what it says."""
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(llm, LoraConfig(r=2, target_modules="all-linear"))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return wrapped


class FakeEncoder:
    """Embeds a text as a vector that only depends on it."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        rows = [torch.Generator().manual_seed(sum(map(ord, text))) for text in texts]
        return torch.stack([torch.randn(8, generator=generator) for generator in rows])


def fake_invert(mixes: Tensor, seed: Sequence[int]) -> list[str]:
    """Decodes a mix to known words that only depend on it and the seed."""
    sentences = []
    for row in mixes:
        start = int(abs(row.sum().item()) * 1000) + sum(seed)
        sentences.append(" ".join(WORDS[(start + step * 7) % len(WORDS)] for step in range(4)))
    return sentences


def make_rows(count: int = 24, num_labels: int = 3) -> tuple[list[str], list[int]]:
    """Distinct short texts of unequal length whose label is a function of the row."""
    texts = [
        " ".join(WORDS[(row * 5 + step * 3) % len(WORDS)] for step in range(3 + row % 4))
        for row in range(count)
    ]
    for row in range(len(WORDS), count):  # from here on they would repeat
        texts[row] += " " + WORDS[row // len(WORDS) % len(WORDS)]
    return texts, [row % num_labels for row in range(count)]


def make_producer(
    count: int = 24,
    num_labels: int = 3,
    *,
    pairing: str = "random",
    seed: int = 0,
    chunk_size: int = 4,
) -> Producer:
    texts, labels = make_rows(count, num_labels)
    plan = PairPlan(
        np.array(labels), pairing=pairing, weights=Beta(1.0), seed=seed, chunk_size=chunk_size
    )
    targets = torch.eye(num_labels)[labels]
    return Producer(texts, targets, plan, FakeEncoder(), fake_invert, "fake")


def make_dataset(texts: Sequence[str], labels: Sequence[int], **extra: Sequence[Any]) -> Dataset:
    encoded = word_tokenizer(classifier=True)(list(texts), truncation=True, max_length=32)
    return Dataset.from_dict({**encoded, "label": list(labels), **extra})
