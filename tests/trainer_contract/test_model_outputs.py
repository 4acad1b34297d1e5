"""Models of a script's own: whatever form their outputs have, the loss is of the right logits."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from attaching import CLASSES, TEXTS, make_mixup, plain_trainer, tokenized
from torch import Tensor, nn
from torch.nn import functional as F
from trainer_runs import LABELS, assert_identical, record, weights
from transformers import Trainer
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import ModelOutput

from mixup_hf import soft_cross_entropy
from mixup_hf.errors import MixupError
from mixup_hf.training.loss import logits_of

RARE = torch.tensor([1.0, 50.0, 1.0])


class Named(NamedTuple):
    loss: Tensor | None
    logits: Tensor


class Plain:
    """Outputs that are neither a dict nor a tuple."""

    def __init__(self, loss: Tensor | None, logits: Tensor) -> None:
        self.loss, self.logits = loss, logits


FORMS: dict[str, Any] = {
    "logits alone": lambda loss, logits: logits if loss is None else (loss, logits),
    "none in front": lambda loss, logits: (loss, logits),
    "one squeezed": lambda loss, logits: (loss, logits.squeeze(-1)),
    "dict": lambda loss, logits: {"loss": loss, "logits": logits},
    "output": lambda loss, logits: SequenceClassifierOutput(loss=loss, logits=logits),
    "named": Named,
}


class Scripted(nn.Module):
    """A mean of embeddings under a linear head."""

    def __init__(self, outputs: int, form: str = "dict", weight: Tensor | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(80, 16), nn.Linear(16, outputs)
        self.form, self.weight, self.drop = FORMS[form], weight, nn.Dropout(0.0)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> Any:
        kept = attention_mask[..., None]
        logits = self.head(self.drop((self.embedding(input_ids) * kept).sum(1) / kept.sum(1)))
        loss = None
        if labels is not None and logits.shape[1] == 1:
            loss = F.mse_loss(logits.squeeze(-1), labels.float())
        elif labels is not None:
            loss = F.cross_entropy(logits, labels, weight=self.weight)
        return self.form(loss, logits)


def logged(trainer: Trainer) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def by_hand(trainer: Trainer, batch: dict[str, Tensor], start: Scripted) -> float:
    """The loss of a recorded batch, from the logits of the model as it was."""
    ids, mask, soft = (batch[key] for key in ("input_ids", "attention_mask", "soft_labels"))
    kept = mask[..., None]
    logits = start.head((start.embedding(ids) * kept).sum(1) / kept.sum(1))
    if soft.shape[1] == 1:
        return float(F.mse_loss(logits, soft))
    return float(F.cross_entropy(logits, soft))


@pytest.mark.parametrize("form", [each for each in FORMS if each != "one squeezed"])
def test_classes(form: str, tmp_path: Path) -> None:
    trainer = plain_trainer(
        tmp_path, model=Scripted(LABELS, form), arguments={"max_steps": 1, "learning_rate": 0.01}
    )
    make_mixup(pairing="cross_class").attach(trainer)
    batches = record(trainer.model)
    trainer.train()
    wanted = by_hand(trainer, batches.training[-1], Scripted(LABELS))
    assert logged(trainer) == [pytest.approx(wanted, abs=1e-4)]


@pytest.mark.parametrize("form", list(FORMS))
def test_numbers(form: str, tmp_path: Path) -> None:
    """A row of logits, or a vector for all rows, would be taken for all of them in silence."""
    trainer = plain_trainer(
        tmp_path,
        model=Scripted(1, form),
        train_dataset=tokenized(labels=[0.5 + each for each in CLASSES]),
        arguments={"max_steps": 1, "learning_rate": 0.01},
    )
    make_mixup().attach(trainer)
    batches = record(trainer.model)
    trainer.train()
    assert batches.training[-1]["labels"].tolist() == [
        pytest.approx(each) for each in batches.training[-1]["soft_labels"].flatten().tolist()
    ]
    wanted = by_hand(trainer, batches.training[-1], Scripted(1))
    assert logged(trainer) == [pytest.approx(wanted, rel=1e-4)]


def test_objects_with_logits_are_read() -> None:
    logits = torch.randn(2, 3)
    assert logits_of(Plain(None, logits)) is logits
    assert logits_of((torch.tensor(0.5), logits)) is logits
    assert logits_of([logits.flatten()]).shape == (6, 1)


@pytest.mark.parametrize("outputs", [{"scores": torch.ones(2, 3)}, (None,), torch.ones(2, 3, 4)])
def test_outputs_without_logits_are_refused(outputs: Any) -> None:
    with pytest.raises(MixupError, match=r"logits of shape \(rows, classes\)"):
        logits_of(outputs)


class ReadsByPosition(Trainer):
    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        loss, logits = model(**inputs)[:2]
        assert logits.ndim == 2
        return (loss, {"logits": logits}) if return_outputs else loss


def test_the_loss_comes_first(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, kind=ReadsByPosition, arguments={"max_steps": 1})
    make_mixup().attach(trainer)
    trainer.train()
    assert len(logged(trainer)) == 1


class ReadsLogits(Trainer):
    """For models that return logits alone."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        labels = inputs["labels"]
        logits = model(**inputs)
        loss = F.cross_entropy(logits[1] if isinstance(logits, tuple) else logits, labels)
        return (loss, logits) if return_outputs else loss


def test_a_loss_made_from_logits_alone_is_refused_as_others_are(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, kind=ReadsLogits, model=Scripted(LABELS, "logits alone"))
    make_mixup().attach(trainer)
    with pytest.raises(MixupError, match="The soft labels of mixed rows are not used"):
        trainer.train()


class NamedInputs(Trainer):
    """Passes inputs by name, so that soft labels never reach the model."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        chosen = {key: inputs[key] for key in ("input_ids", "attention_mask", "labels")}
        outputs = model(**chosen)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


def test_inputs_passed_by_name_are_refused_with_the_reason(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, kind=NamedInputs)
    make_mixup().attach(trainer)
    with pytest.raises(MixupError, match=r"does not call model\(\*\*inputs\)"):
        trainer.train()


class SwitchesLoss(Trainer):
    """Trains on hard labels from the second step on."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        labels, outputs = inputs["labels"], model(**inputs)
        first = self.state.global_step < 1
        loss = outputs.loss if first else F.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


def test_every_step_is_checked(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, kind=SwitchesLoss)
    make_mixup().attach(trainer)
    with pytest.raises(MixupError, match="The soft labels of mixed rows are not used"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_a_loss_of_the_models_own_is_refused(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, model=Scripted(LABELS, weight=RARE))
    before = weights(trainer.model)
    make_mixup().attach(trainer)
    with pytest.raises(MixupError, match=r"Scripted computes another loss.*class_weights"):
        trainer.train()
    assert_identical(before, weights(trainer.model))


def test_unless_the_plugin_weights_classes(tmp_path: Path) -> None:
    trainer = plain_trainer(
        tmp_path, model=Scripted(LABELS, weight=RARE), arguments={"max_steps": 1}
    )
    make_mixup(class_weights=RARE.tolist()).attach(trainer)
    assert trainer.train().global_step == 1


class Draws(Scripted):
    """Draws a random number in every pass, in evaluation too, and has dropout."""

    def __init__(self) -> None:
        super().__init__(LABELS)
        self.drop = nn.Dropout(0.5)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.modes = [*getattr(self, "modes", []), self.drop.training]
        torch.rand(1)
        return super().forward(*args, **kwargs)


Draws.forward.__signature__ = inspect.signature(Scripted.forward)  # type: ignore[attr-defined]


def test_the_check_leaves_no_trace(tmp_path: Path) -> None:
    """Random numbers and weights are those of a run that was not checked."""
    ends = []
    for checked in (True, False):
        trainer = plain_trainer(tmp_path / str(checked), model=Draws())
        make_mixup(TEXTS, CLASSES).attach(trainer, check_rows=checked)
        trainer.train()
        assert trainer.model.modes == [False] * checked + [True] * 3
        ends.append(weights(trainer.model))
    assert_identical(*ends)


def summed(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


def counted(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    count = num_items_in_batch / (labels.shape[-1] if labels.is_floating_point() else 1)
    return F.cross_entropy(outputs.logits, labels, reduction="sum") / count


def wrapped(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return soft_cross_entropy(outputs, labels, num_items_in_batch) + 0.0


def test_an_explicit_loss_that_counts_elements_as_rows_is_refused(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, compute_loss_func=summed)
    with pytest.raises(MixupError, match="'summed' is 3 times as small"):
        make_mixup().attach(trainer, explicit_loss=True)


@pytest.mark.parametrize("loss", [counted, wrapped, soft_cross_entropy])
def test_one_that_counts_rows_gives_the_loss_of_hard_labels(loss: Any, tmp_path: Path) -> None:
    losses = []
    for ratio in (None, 0.0001):
        trainer = plain_trainer(
            tmp_path / str(ratio), compute_loss_func=loss, arguments={"max_steps": 1}
        )
        if ratio is not None:
            make_mixup(mix_ratio=ratio).attach(trainer, explicit_loss=True)
        trainer.train()
        losses += logged(trainer)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@dataclass
class OnlyLogits(ModelOutput):
    logits: Tensor | None = None


def test_outputs_of_a_class_without_a_loss_are_given_one(tmp_path: Path) -> None:
    model = Scripted(LABELS)
    model.form = lambda loss, logits: OnlyLogits(logits=logits)
    trainer = plain_trainer(tmp_path, model=model, arguments={"max_steps": 1})
    make_mixup().attach(trainer)
    trainer.train()
    assert len(logged(trainer)) == 1


class Bare(Scripted):
    """Takes no labels."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:  # type: ignore[override]
        return super().forward(input_ids, attention_mask)


def test_a_model_that_takes_no_labels_is_trained(tmp_path: Path) -> None:
    trainer = plain_trainer(
        tmp_path,
        model=Bare(LABELS),
        arguments={"max_steps": 1, "label_names": ["labels"], "remove_unused_columns": True},
    )
    make_mixup().attach(trainer)
    trainer.train()
    assert len(logged(trainer)) == 1
