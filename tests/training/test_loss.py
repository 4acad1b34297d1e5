from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers.modeling_outputs import SequenceClassifierOutput

from mixup_hf import soft_cross_entropy
from mixup_hf.training.loss import as_soft_labels, row_losses, smooth

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 1.0, 4.0]])
HARD = torch.tensor([0, 2, 1])
SOFT = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])


def outputs(logits: torch.Tensor = LOGITS) -> SequenceClassifierOutput:
    return SequenceClassifierOutput(logits=logits)


def by_hand(soft: torch.Tensor = SOFT) -> torch.Tensor:
    return -(soft * LOGITS.log_softmax(-1)).sum(-1)


def test_soft_labels_give_the_cross_entropy_of_the_formula() -> None:
    assert torch.allclose(row_losses(LOGITS, SOFT), by_hand())
    assert torch.allclose(soft_cross_entropy(outputs(), SOFT), by_hand().mean())


def test_hard_labels_give_the_usual_cross_entropy() -> None:
    assert torch.allclose(soft_cross_entropy(outputs(), HARD), F.cross_entropy(LOGITS, HARD))


def test_outputs_may_be_a_tuple_or_a_dict() -> None:
    expected = soft_cross_entropy(outputs(), SOFT)
    assert soft_cross_entropy((LOGITS, "more"), SOFT) == expected
    assert soft_cross_entropy({"logits": LOGITS}, SOFT) == expected


@pytest.mark.parametrize("kind", [int, torch.tensor])
def test_the_sum_is_divided_by_the_rows_of_the_whole_step(kind: type) -> None:
    # The Trainer counts elements of `labels`: rows for class indices, rows * C for soft labels.
    rows = 12
    assert torch.allclose(
        soft_cross_entropy(outputs(), HARD, kind(rows)),
        F.cross_entropy(LOGITS, HARD, reduction="sum") / rows,
    )
    assert torch.allclose(
        soft_cross_entropy(outputs(), SOFT, kind(rows * 3)), by_hand().sum() / rows
    )


def test_gradient_accumulation_adds_up_to_the_loss_of_the_large_batch() -> None:
    parts = [
        soft_cross_entropy(outputs(LOGITS[rows]), SOFT[rows], num_items_in_batch=9)
        for rows in (slice(0, 1), slice(1, 3))
    ]
    assert torch.allclose(sum(parts), soft_cross_entropy(outputs(), SOFT))


def test_a_row_with_less_mass_weighs_less() -> None:
    weights = torch.tensor([[1.0], [0.25], [1.0]])
    assert torch.allclose(row_losses(LOGITS, SOFT * weights), by_hand() * weights[:, 0])


def test_half_precision_logits_are_summed_in_float32() -> None:
    loss = soft_cross_entropy(outputs(LOGITS.bfloat16()), SOFT)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, by_hand().mean(), atol=0.02)


def test_the_gradient_is_softmax_minus_target() -> None:
    logits = LOGITS.clone().requires_grad_()
    soft_cross_entropy(outputs(logits), SOFT).backward()
    assert torch.allclose(logits.grad, (LOGITS.softmax(-1) - SOFT) / 3, atol=1e-6)


@pytest.mark.parametrize(
    "labels",
    [
        torch.rand(3),  # regression
        torch.rand(3, 2),  # another number of classes
        torch.tensor([[1, 0, 0]] * 3),  # multi-label, integers
        torch.rand(3, 3, 1),
    ],
)
def test_labels_of_another_kind_are_refused_with_what_was_received(labels: torch.Tensor) -> None:
    shape = ", ".join(map(str, labels.shape))
    with pytest.raises(ValueError, match=rf"soft labels \(B, 3\), but got .*{shape}"):
        soft_cross_entropy(outputs(), labels)


def test_class_indices_become_one_hot_rows() -> None:
    assert torch.equal(as_soft_labels(HARD, 3), torch.eye(3)[HARD])
    assert as_soft_labels(SOFT, 3) is SOFT


def test_smoothing_is_that_of_torch() -> None:
    smoothed = smooth(as_soft_labels(HARD, 3), 0.1)
    assert torch.allclose(
        row_losses(LOGITS, smoothed).mean(), F.cross_entropy(LOGITS, HARD, label_smoothing=0.1)
    )


@given(st.floats(0, 1), st.floats(0, 2))
def test_smoothing_keeps_the_mass_of_every_row(factor: float, mass: float) -> None:
    soft = SOFT * mass
    smoothed = smooth(soft, factor)
    assert torch.allclose(smoothed.sum(-1), soft.sum(-1), atol=1e-5)
    assert (smoothed >= 0).all()


def test_no_smoothing_changes_nothing() -> None:
    assert torch.equal(smooth(SOFT, 0.0), SOFT)
