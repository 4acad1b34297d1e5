from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import bert_config, make_encoder, make_rows, word_tokenizer
from transformers import BertModel

from mixup_hf.inverter.encoder import FrozenEncoder, pool

STATES = torch.tensor(
    [
        [[1.0, 2.0], [3.0, 4.0], [50.0, 60.0]],
        [[5.0, 0.0], [0.0, 7.0], [1.0, 2.0]],
    ]
)
RIGHT = torch.tensor([[1, 1, 0], [1, 1, 1]])
LEFT = torch.tensor([[0, 1, 1], [1, 1, 1]])


def make_encoder_with(**settings: object) -> FrozenEncoder:
    torch.manual_seed(0)
    return FrozenEncoder(BertModel(bert_config()), word_tokenizer(classifier=True), **settings)


@pytest.mark.parametrize(
    ("pooling", "mask", "expected"),
    [
        ("mean", RIGHT, [[2.0, 3.0], [2.0, 3.0]]),
        ("mean", LEFT, [[26.5, 32.0], [2.0, 3.0]]),
        ("cls", RIGHT, [[1.0, 2.0], [5.0, 0.0]]),
        ("last", RIGHT, [[3.0, 4.0], [1.0, 2.0]]),
        ("last", LEFT, [[50.0, 60.0], [1.0, 2.0]]),
    ],
)
def test_pooling_takes_the_right_tokens(
    pooling: str, mask: torch.Tensor, expected: list[list[float]]
) -> None:
    assert torch.equal(pool(STATES, mask, pooling, False), torch.tensor(expected))


def test_normalized_embeddings_keep_their_direction_and_have_unit_length() -> None:
    pooled = pool(STATES, RIGHT, "cls", True)
    assert torch.allclose(pooled, torch.tensor([[1, 2], [5, 0]]) / torch.tensor([[5**0.5], [5]]))


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="`pooling` must be one of 'mean', 'cls', 'last'"):
        make_encoder_with(pooling="max")


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_neither_the_batch_nor_its_padding_changes_an_embedding(pooling: str) -> None:
    encoder = make_encoder_with(pooling=pooling)
    texts, _ = make_rows(9)
    together = encoder.encode(texts)
    alone = torch.cat([encoder.encode([text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together, encoder.encode(texts, batch_size=2), atol=1e-6)


def test_embeddings_come_in_the_order_of_the_texts() -> None:
    encoder = make_encoder()
    texts = ["the new old big small market price", "win", "red blue", "a goal of the match team"]
    embeddings = encoder.encode(texts, batch_size=2)
    assert torch.allclose(encoder.encode(texts[::-1]), embeddings.flip(0), atol=1e-6)
    distances = torch.cdist(embeddings, embeddings) + torch.eye(len(texts))
    assert distances.min() > 1e-3


def test_embeddings_are_unit_float32_vectors_without_gradient() -> None:
    encoder = make_encoder()
    embeddings = encoder.encode(["the bank", "profit"])
    assert embeddings.shape == (2, encoder.embedding_dim) == (2, 16)
    assert embeddings.dtype == torch.float32
    assert not embeddings.requires_grad
    assert torch.allclose(embeddings.norm(dim=-1), torch.ones(2))
    assert not torch.allclose(
        make_encoder_with(normalize=False).encode(["the bank"]).norm(), torch.ones(1)
    )


def test_the_encoder_is_frozen_and_has_no_dropout() -> None:
    encoder = make_encoder()
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert torch.equal(encoder.encode(["the bank"]), encoder.encode(["the bank"]))


def test_a_long_text_is_cut_to_max_length() -> None:
    encoder = make_encoder_with(max_length=6)  # four words between the two special tokens
    cut, same, other = encoder.encode(
        ["the bank of the city", "the bank of the court of law", "the bank of law city"]
    )
    assert torch.equal(cut, same)
    assert not torch.allclose(cut, other)


def test_encoding_leaves_the_global_generator_alone() -> None:
    encoder = make_encoder()
    before = torch.get_rng_state()
    encoder.encode(["the bank"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("texts", [[], [""], ["fine", "  "]])
def test_empty_texts_are_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="`texts` must hold"):
        make_encoder().encode(texts)


def test_a_saved_encoder_embeds_alike(tmp_path: Path) -> None:
    encoder = make_encoder()
    encoder.model.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    texts, _ = make_rows(4)
    loaded = FrozenEncoder.from_pretrained(tmp_path, pooling="mean", normalize=True)
    assert torch.allclose(loaded.encode(texts), encoder.encode(texts), atol=1e-6)


@pytest.fixture
def encoder_folder(tmp_path: Path) -> Path:
    encoder = make_encoder()
    encoder.model.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    return tmp_path


def state_pooling(folder: Path, name: str = "1_Pooling", **config: object) -> None:
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(json.dumps({"embedding_dimension": 16} | config))


CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "include_prompt": True}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CLS, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_pooling_is_read_from_the_folder(
    encoder_folder: Path, config: dict[str, object], expected: str
) -> None:
    state_pooling(encoder_folder, **config)
    assert FrozenEncoder.from_pretrained(encoder_folder).pooling == expected


def test_pooling_is_found_where_the_list_of_modules_puts_it(encoder_folder: Path) -> None:
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "2_Pool", "type": "sentence_transformers.models.Pooling"},
    ]
    (encoder_folder / "modules.json").write_text(json.dumps(modules))
    state_pooling(encoder_folder, "2_Pool", **CLS)
    assert FrozenEncoder.from_pretrained(encoder_folder).pooling == "cls"


def test_without_a_pooling_config_the_mean_is_taken_and_any_other_can_be_chosen(
    encoder_folder: Path,
) -> None:
    assert FrozenEncoder.from_pretrained(encoder_folder).pooling == "mean"
    assert FrozenEncoder.from_pretrained(encoder_folder, pooling="cls").pooling == "cls"


def test_another_pooling_than_the_folders_is_refused(encoder_folder: Path) -> None:
    state_pooling(encoder_folder, **CLS)
    with pytest.raises(ValueError, match="`pooling` must be 'cls' for .* but got 'mean'"):
        FrozenEncoder.from_pretrained(encoder_folder, pooling="mean")


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
    ],
)
def test_a_pooling_that_is_not_supported_is_refused(
    encoder_folder: Path, config: dict[str, object]
) -> None:
    state_pooling(encoder_folder, **config)
    with pytest.raises(ValueError, match="`encoder` must use one of the poolings mean, cls, last"):
        FrozenEncoder.from_pretrained(encoder_folder)
