"""The contrastive term: its value by hand, and what it takes from a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
)

from mixup_hf.errors import InvalidInput
from mixup_hf.training.contrastive import (
    Contrast,
    ContrastiveTerm,
    contrastive_loss,
    last_token,
    mean_pool,
)

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 40,
    "pad_token_id": 0,
    "num_labels": 2,
}
PAD: dict[str, Any] = {"pad_token_id": 0, "num_labels": 2}


def test_the_loss_is_that_computed_by_hand() -> None:
    """Unit rows (1, 0), (0.6, 0.8), (0, 1) with cosines 0.6, 0 and 0.8."""
    embeddings = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 0.5]])
    targets = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.0, 1.0]])
    # Products of labels 0.75 (positive), 0 and 0.25 (negative).
    positive = (0.6 - 0.75) ** 2
    negative = ((0.0 - 0.0) ** 2 + (0.8 - 0.25) ** 2) / 2
    expected = (positive + negative) / 2
    assert contrastive_loss(embeddings, targets).item() == pytest.approx(expected, abs=1e-6)


def test_a_row_is_no_pair_with_itself() -> None:
    """A flat label's product with itself is below one half: its cosine of 1 would be an error."""
    flat = torch.full((2, 4), 0.25)
    same = torch.ones(2, 3)
    assert contrastive_loss(same, flat).item() == pytest.approx((1 - 0.25) ** 2)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [([[1.0, 0.0], [1.0, 0.0]], 0.16), ([[1.0, 0.0], [0.0, 1.0]], 0.36), ([[1.0, 0.0]], 0.0)],
    ids=["positive pairs only", "negative pairs only", "one row"],
)
def test_pairs_of_one_kind_are_averaged_alone(targets: list[list[float]], expected: float) -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8]])[: len(targets)].requires_grad_()
    loss = contrastive_loss(embeddings, torch.tensor(targets))
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert embeddings.grad is not None and embeddings.grad.isfinite().all()


def test_pooling_leaves_out_padding() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [6.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert mean_pool(hidden, mask).flatten().tolist() == [2.0, 4.0]
    assert mean_pool(hidden[1:], None).flatten().tolist() == [4.0]


HEADS = {
    "llama": LlamaConfig(num_hidden_layers=1, num_key_value_heads=1, **SIZES),
    "gpt2": GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=32, vocab_size=40, **PAD),
    "bloom": BloomConfig(n_layer=1, n_head=2, hidden_size=16, vocab_size=40, **PAD),
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", HEADS)
def test_rows_of_a_decoder_are_compared_by_the_states_that_its_head_reads(
    name: str, side: str
) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(HEADS[name]).eval()
    texts = [[5, 6, 7, 8], [9, 10], [5, 0, 11]]  # an inner padding token, as some texts have
    ids, mask = torch.zeros(3, 5, dtype=torch.int64), torch.zeros(3, 5, dtype=torch.int64)
    for row, text in enumerate(texts):
        place = slice(5 - len(text), 5) if side == "left" else slice(0, len(text))
        ids[row, place], mask[row, place] = torch.tensor(text), 1
    found = ContrastiveTerm(model, Contrast(2.0), "single_label_classification")
    found.install()
    found.listen()
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
        hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = last_token(hidden, mask, ids, 0)
        assert torch.allclose(model.score(pooled), logits, atol=1e-5)
        assert torch.equal(pooled, last_token(hidden, mask))  # without ids, by the mask
        expected = 2 * contrastive_loss(pooled, LABELS).item()
        assert found.take(LABELS, mask, ids).item() == pytest.approx(expected, abs=1e-5)
        assert expected != pytest.approx(2 * contrastive_loss(mean_pool(hidden, mask), LABELS))


@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta-v2"])
def test_rows_of_an_encoder_are_compared_by_their_mean(kind: str) -> None:
    config = AutoConfig.for_model(kind, num_hidden_layers=1, **SIZES)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    found = ContrastiveTerm(model, Contrast(2.0), "single_label_classification")
    found.install()
    found.listen()
    ids = torch.tensor([[5, 6, 7], [9, 10, 0], [5, 11, 0]])
    mask = (ids > 0).long()
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        expected = 2 * contrastive_loss(mean_pool(hidden, mask), LABELS).item()
        assert found.take(LABELS, mask, ids).item() == pytest.approx(expected, abs=1e-5)


def test_the_head_is_told_apart_from_end_of_sequence_by_the_token_that_pads() -> None:
    """With the padding token at the end of a text, the head reads the token before it."""
    hidden, ids = torch.arange(4.0).reshape(1, 4, 1), torch.tensor([[5, 6, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0]])
    assert last_token(hidden, mask, ids, 0).item() == 1
    assert last_token(hidden, mask, ids, None).item() == last_token(hidden, mask).item() == 2
    assert last_token(hidden, None).item() == 3


class Body(nn.Module):
    def forward(self, hidden: Any) -> Any:
        return hidden


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base_model = Body()


HIDDEN = torch.tensor([[[1.0, 0.0]], [[0.6, 0.8]], [[0.0, 1.0]]])
LABELS = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.0, 1.0]])
MASK = torch.ones(3, 1, dtype=torch.int64)


def term(targets: Tensor, problem_type: str = "single_label_classification") -> float:
    model = Model()
    found = ContrastiveTerm(model, Contrast(2.0), problem_type)
    found.install()
    found.listen()
    model.base_model({"last_hidden_state": HIDDEN})
    return found.take(targets, MASK).item()


def test_weights_in_the_soft_labels_do_not_change_the_pairs() -> None:
    weights = torch.tensor([[1.0], [0.3], [2.0]])
    expected = 2 * contrastive_loss(HIDDEN[:, 0], LABELS).item()
    assert term(LABELS) == pytest.approx(expected)
    assert term(LABELS * weights) == pytest.approx(expected)


def test_rows_without_weight_are_in_no_pair() -> None:
    without = LABELS * torch.tensor([[1.0], [0.0], [1.0]])
    assert term(without) == pytest.approx(2 * contrastive_loss(HIDDEN[::2, 0], LABELS[::2]).item())


def test_several_labels_are_compared_by_their_cosine() -> None:
    labels = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    # One pair of rows with labels, whose cosine is 1 where the states' is 0.6.
    assert term(labels, "multi_label_classification") == pytest.approx(2 * 0.16)


def test_states_are_kept_of_the_batch_that_is_waited_for_only() -> None:
    model = Model()
    found = ContrastiveTerm(model, Contrast(1.0), "single_label_classification")
    found.install()
    model.base_model({"last_hidden_state": HIDDEN})  # an evaluation
    with pytest.raises(InvalidInput, match="needs one hidden state per token"):
        found.take(LABELS, MASK)


@pytest.mark.parametrize("states", [None, HIDDEN[:, 0], HIDDEN.expand(3, 2, 2)])
def test_other_states_than_those_of_the_tokens_are_refused(states: Tensor | None) -> None:
    model = Model()
    found = ContrastiveTerm(model, Contrast(1.0), "single_label_classification")
    found.install()
    found.listen()
    model.base_model({"last_hidden_state": states})
    with pytest.raises(InvalidInput, match="Set `contrastive_weight: 0`"):
        found.take(LABELS, MASK)


def test_a_model_without_a_body_is_refused() -> None:
    plain = nn.Linear(2, 2)
    with pytest.raises(InvalidInput, match="Linear has no `base_model`"):
        ContrastiveTerm(plain, Contrast(1.0), "single_label_classification")
    plain.base_model = plain  # as transformers answers where it knows none
    with pytest.raises(InvalidInput, match="Linear has no `base_model`"):
        ContrastiveTerm(plain, Contrast(1.0), "single_label_classification")


def test_regression_is_refused() -> None:
    with pytest.raises(InvalidInput, match="`contrastive_weight` must be 0 for regression"):
        ContrastiveTerm(Model(), Contrast(1.0), "regression")
