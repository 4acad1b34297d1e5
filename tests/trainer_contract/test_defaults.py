"""A run with the settings left open: committee, curriculum and contrastive term, and the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import CLASSES, TEXTS, TOKENIZER, make_mixup, plain_trainer, tokenized
from tiny import make_classifier
from torch import nn
from torch.utils.data import DataLoader
from trainer_runs import LABELS, assert_identical, record, weights
from transformers import DataCollatorWithPadding, Trainer

from mixup_hf import InversedMixup, OfflineMixup, soft_cross_entropy
from mixup_hf.data.row_writer import write_rows
from mixup_hf.errors import InvalidInput
from mixup_hf.training.augmentation import Written, written_record
from mixup_hf.training.regeneration import record_of

CHOSEN = "mixup_hf: chosen for 12 rows of 3 classes: a committee's labels, "
LEFT_OUT = "training without the contrastive term"


def make_default(*rows: Any, **settings: Any) -> InversedMixup:
    return make_mixup(*rows, **({"label_source": None, "committee": ("encoder",)} | settings))


def mixed_per_step(batches: Any) -> list[int]:
    return [int((batch["mixup_rows"] >= 0).sum()) for batch in steps(batches)]


def steps(batches: Any) -> list[Any]:
    """Batches of the run, without those that the body was tuned on before it."""
    return [batch for batch in batches.training if "mixup_rows" in batch]


class Pooled(nn.Module):
    """A classifier of one's own, with or without a body that gives states."""

    def __init__(self, *, body: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.EmbeddingBag(len(TOKENIZER), 8)
        self.head = nn.Linear(8, LABELS)
        if body:
            self.base_model = self.table  # one state a row, and none a token

    def forward(self, input_ids: Any, attention_mask: Any = None, **inputs: Any) -> Any:
        return {"logits": self.head(self.table(input_ids))}


def test_committee_then_real_rows_and_a_contrastive_term(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = plain_trainer(tmp_path / "default", arguments={"num_train_epochs": 4})
    batches = record(trainer.model)
    mixup = make_default().attach(trainer)
    trainer.train()
    assert mixed_per_step(batches) == [4] * 6 + [0] * 6
    assert [len(batch["input_ids"]) for batch in steps(batches)] == [8] * 12
    assert capsys.readouterr().err.count(CHOSEN) == 1
    assert all(set(row.votes) == {"encoder"} for row in mixup.generate(4))
    without = plain_trainer(tmp_path / "without", arguments={"num_train_epochs": 4})
    make_default(contrastive_weight=0).attach(without)
    without.train()
    assert without.state.log_history[0]["loss"] != trainer.state.log_history[0]["loss"]


def test_the_line_is_printed_when_training_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = plain_trainer(tmp_path)
    make_default().attach(trainer)
    assert CHOSEN not in capsys.readouterr().err
    trainer.train()
    assert CHOSEN in capsys.readouterr().err


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    arguments = {"num_train_epochs": 4, "save_strategy": "steps", "save_steps": 4}
    whole = plain_trainer(tmp_path, arguments=arguments)
    make_default().attach(whole)
    whole.train()
    again = plain_trainer(tmp_path, arguments=arguments)
    make_default().attach(again)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert_identical(weights(again.model), weights(whole.model))


@pytest.mark.parametrize("background", [False, True])
def test_workers_and_the_background_change_nothing(background: bool, tmp_path: Path) -> None:
    plain = plain_trainer(tmp_path / "plain", arguments={"num_train_epochs": 2})
    make_default().attach(plain)
    plain.train()
    arguments = {"num_train_epochs": 2, "dataloader_num_workers": 2}
    other = plain_trainer(tmp_path / "other", arguments=arguments)
    make_default(background=background).attach(other)
    other.train()
    assert_identical(weights(other.model), weights(plain.model))


def test_a_loss_of_the_trainers_own_is_trained_without_the_term(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = plain_trainer(tmp_path, compute_loss_func=soft_cross_entropy)
    make_default().attach(trainer)
    assert trainer.train().global_step == 3
    assert "no contrastive term" in capsys.readouterr().err


@pytest.mark.parametrize("body", [False, True])
def test_a_model_without_states_is_trained_without_the_term(
    body: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = plain_trainer(tmp_path / "open", model=Pooled(body=body))
    make_default().attach(trainer)
    with caplog.at_level("INFO", logger="mixup_hf"):
        assert trainer.train().global_step == 3
    assert caplog.text.count(LEFT_OUT) == 1
    trainer = plain_trainer(tmp_path / "set", model=Pooled(body=body))
    make_default(contrastive_weight=2).attach(trainer)
    with pytest.raises(InvalidInput, match="`contrastive_weight` needs one hidden state per token"):
        trainer.train()


@pytest.mark.parametrize(
    "labels", [[[0, 1, 1], [1, 0, 0], [0, 0, 1]] * 4, [0.5 + at for at in range(12)]]
)
def test_other_tasks_are_mixed_throughout(
    labels: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = "multi_label_classification" if isinstance(labels[0], list) else "regression"
    model = make_classifier(3 if kind.startswith("multi") else 1)
    model.config.problem_type = kind
    floats = [[float(each) for each in label] for label in labels] if kind != "regression" else None
    trainer = plain_trainer(tmp_path, model=model, train_dataset=tokenized(TEXTS, floats or labels))
    batches = record(trainer.model)
    mixup = make_default(TEXTS, labels).attach(trainer)
    trainer.train()
    assert mixed_per_step(batches) == [4] * 3
    assert mixup.chosen.label_source == "parents"
    assert "the parents' labels" in capsys.readouterr().err


def test_a_loop_without_a_trainer_gets_the_committees_labels_in_every_epoch() -> None:
    mixup = make_default(TEXTS, CLASSES)
    data = tokenized().remove_columns("text")
    loader = DataLoader(data, batch_size=4, collate_fn=DataCollatorWithPadding(TOKENIZER))
    for epoch in range(2):
        for _, targets in mixup.batches(loader, TOKENIZER, epoch=epoch):
            assert int(targets.mixed.sum()) == 4
            assert float(targets.values[targets.mixed].max()) < 1


def test_rows_of_a_file_are_used_as_those_of_a_run(tmp_path: Path) -> None:
    """Eight rows of the committee's for twelve places: each is used before one is used twice."""
    mixup = make_default(TEXTS, CLASSES)
    table = type("Table", (), {"labels": CLASSES})()
    written = written_record(Written(), table, mixup)
    write_rows(
        tmp_path / "rows.jsonl", [record_of(row, mixup, written) for row in mixup.generate(8)]
    )
    offline = OfflineMixup(tmp_path / "rows.jsonl")
    trainer: Trainer = plain_trainer(tmp_path / "run", arguments={"num_train_epochs": 2})
    batches = record(trainer.model)
    offline.attach(trainer)
    trainer.train()
    assert mixed_per_step(batches) == [4] * 3 + [0] * 3
    (callback,) = [e for e in trainer.callback_handler.callbacks if hasattr(e, "used_rows")]
    assert sorted(count for _, count in callback.used_rows()) == [1] * 4 + [2] * 4
