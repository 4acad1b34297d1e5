"""A loss of the user's own uses the soft labels, or is refused; class weights are offered."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import CLASSES, TEXTS, TOKENIZER, make_mixup, plain_trainer
from torch import Tensor
from torch.nn import functional as F
from trainer_runs import LABELS, assert_close, assert_identical, make_run, record, weights
from transformers import Trainer

from mixup_hf import soft_cross_entropy
from mixup_hf.errors import MixupError
from mixup_hf.training.loss import read_class_weights

WEIGHTS = torch.tensor([1.0, 2.0, 3.0])


def hard_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return F.cross_entropy(outputs["logits"], labels, weight=WEIGHTS)


def soft_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return F.cross_entropy(outputs["logits"], labels)


class HardTrainer(Trainer):
    """As in many scripts for imbalanced data."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs.logits, labels, weight=WEIGHTS)
        return (loss, outputs) if return_outputs else loss


class SoftTrainer(HardTrainer):
    """Accepts soft labels, as `cross_entropy` does; its loss is a mean over the micro-batch."""

    loss_is_scaled_for_ga = False


class PenaltyTrainer(Trainer):
    """Adds to the model's loss."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        loss = loss + 0.01 * outputs.logits.square().mean()
        return (loss, outputs) if return_outputs else loss


def test_a_loss_function_that_takes_hard_labels_is_refused_when_attached(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, compute_loss_func=hard_loss)
    with pytest.raises(MixupError, match="hard_loss.*class_weights='balanced'.*explicit_loss=True"):
        make_mixup().attach(trainer)


def test_and_before_the_first_step_by_keywords(tmp_path: Path) -> None:
    run = make_run(tmp_path, trainer={"compute_loss_func": hard_loss})
    with pytest.raises(MixupError, match="The soft labels of mixed rows are not used"):
        run.train()
    assert_identical(weights(run.initial), weights(run.model))


@pytest.mark.parametrize("attached", [True, False])
def test_an_overridden_compute_loss_that_ignores_soft_labels_stops_before_the_first_step(
    attached: bool, tmp_path: Path
) -> None:
    kwargs = {} if attached else make_mixup(TEXTS, CLASSES).trainer_kwargs(TOKENIZER)
    trainer = plain_trainer(tmp_path, kind=HardTrainer, **kwargs)
    before = weights(trainer.model)
    if attached:
        make_mixup().attach(trainer)
    with pytest.raises(MixupError, match="another loss, from a `compute_loss_func`"):
        trainer.train()
    assert_identical(before, weights(trainer.model))


def test_an_overridden_compute_loss_that_adds_to_the_models_is_fine(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, kind=PenaltyTrainer)
    make_mixup().attach(trainer)
    assert trainer.train().global_step == 3


def test_a_loss_that_takes_soft_labels_gets_them(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def spy(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        seen.append(labels)
        return soft_loss(outputs, labels)

    trainer = plain_trainer(tmp_path / "attached", compute_loss_func=spy)
    make_mixup(pairing="cross_class").attach(trainer, explicit_loss=True)
    seen.clear()  # it was tried
    trainer.train()
    assert all(labels.shape == (8, LABELS) for labels in seen)
    assert any(((labels > 0) & (labels < 1)).any() for labels in seen)
    kwargs = make_mixup(TEXTS, CLASSES).trainer_kwargs(TOKENIZER, explicit_loss=soft_loss)
    assert kwargs["compute_loss_func"] is soft_loss
    plain_trainer(tmp_path / "keywords", **kwargs).train()


def test_an_overridden_compute_loss_may_take_soft_labels(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, kind=SoftTrainer)
    make_mixup().attach(trainer, explicit_loss=True)
    assert trainer.compute_loss_func is None
    assert trainer.train().global_step == 3
    weighted = make_mixup(TEXTS, CLASSES)
    weighted.class_weights = WEIGHTS
    with pytest.raises(MixupError, match="`class_weights` is applied in the plugin's loss"):
        weighted.attach(plain_trainer(tmp_path, kind=SoftTrainer), explicit_loss=True)


def test_ours_is_known_to_take_soft_labels(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, compute_loss_func=soft_cross_entropy)
    make_mixup().attach(trainer)
    assert trainer.data_collator.label_format == "labels"
    trainer.train()


def test_class_weights_are_torchs_for_class_probabilities() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 0.0]])
    soft = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]])
    loss = soft_cross_entropy({"logits": logits}, soft, class_weights=WEIGHTS)
    assert torch.allclose(loss, torch.nn.CrossEntropyLoss(weight=WEIGHTS)(logits, soft))
    log_p = logits.log_softmax(-1)
    by_hand = -(0.7 * log_p[0, 0] + 2 * 0.3 * log_p[0, 1] + 3 * log_p[1, 2]) / 2
    assert loss.item() == pytest.approx(by_hand.item())


def test_balanced_weights_average_one_over_the_training_rows() -> None:
    targets = torch.eye(3)[[0, 0, 0, 0, 1, 2]]
    found = read_class_weights("balanced", targets, "single_label_classification")
    assert found is not None
    assert found.tolist() == [0.5, 2.0, 2.0]
    assert (targets @ found).mean().item() == 1.0
    with pytest.raises(MixupError, match=r"the classes \[2\] have none"):
        read_class_weights("balanced", targets[:5], "single_label_classification")
    for bad in ([1.0, 2.0], [1.0, 2.0, 0.0]):
        with pytest.raises(MixupError, match="3 numbers greater than 0"):
            read_class_weights(bad, targets, "single_label_classification")
    with pytest.raises(MixupError, match="be left out for 'regression'"):
        read_class_weights("balanced", targets, "regression")


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_weighted_step_is_the_one_done_by_hand_however_it_is_accumulated(
    accumulation: int, explicit: bool, tmp_path: Path
) -> None:
    """12 real and 12 mixed rows, in one batch or in three micro-batches."""
    size = 12 // accumulation
    trainer = plain_trainer(
        tmp_path,
        arguments={
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulation,
        },
    )
    model = copy.deepcopy(trainer.model).eval()
    batches = record(trainer.model)
    mixup = make_mixup(pairing="cross_class", class_weights=WEIGHTS.tolist())
    mixup.attach(trainer, explicit_loss=explicit)
    soft: list[Tensor] = []
    if explicit:
        loss_of = trainer.compute_loss_func
        trainer.compute_loss_func = lambda out, labels, **kw: (
            soft.append(labels) or loss_of(out, labels, **kw)
        )
    trainer.train()
    total = torch.zeros(())
    for at, batch in enumerate(batches.training):
        labels = soft[at] if explicit else batch["soft_labels"]
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
        logits = model(**inputs).logits
        total = total - (WEIGHTS * labels * logits.log_softmax(-1)).sum() / 24
    total.backward()
    with torch.no_grad():
        for each in model.parameters():
            each -= 0.5 * each.grad if each.grad is not None else 0
    assert_close(weights(trainer.model), weights(model))


def test_class_weights_and_a_loss_of_ones_own_are_refused_together(tmp_path: Path) -> None:
    mixup = make_mixup(TEXTS, CLASSES)
    mixup.class_weights = WEIGHTS
    with pytest.raises(MixupError, match="`class_weights` is applied in the plugin's loss"):
        mixup.trainer_kwargs(TOKENIZER, explicit_loss=soft_loss)
    trainer = plain_trainer(tmp_path, compute_loss_func=soft_loss)
    with pytest.raises(MixupError, match="`class_weights` is applied in the plugin's loss"):
        mixup.attach(trainer, explicit_loss=True)
