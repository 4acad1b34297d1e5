"""The contrastive term in the loss of an unmodified Trainer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from attaching import CLASSES, TEXTS, TOKENIZER, make_mixup, plain_trainer
from tiny import make_dataset, make_rows
from torch import Tensor
from torch.utils.data import DataLoader
from trainer_runs import (
    LABELS,
    RATE,
    Row,
    Run,
    assert_close,
    assert_identical,
    expected_rows,
    loss_by_hand,
    make_family,
    make_run,
    sharp_classifier,
    smoothed,
    tokens,
    weights,
)
from transformers import DataCollatorWithPadding

from mixup_hf import soft_cross_entropy
from mixup_hf.errors import InvalidInput
from mixup_hf.training.contrastive import Contrast, contrastive_loss

WEIGHT = 2.0
TERM: dict[str, Any] = {"contrast": Contrast(WEIGHT, rows="all")}


def term_by_hand(model: Any, rows: Sequence[Row]) -> Tensor:
    """The term of one micro-batch, from states of one row at a time: no padding."""
    inner = getattr(model, "get_base_model", lambda: model)()
    states = []
    for row in rows:
        found = inner.base_model(input_ids=torch.tensor([tokens(row.text)])).last_hidden_state[0]
        states.append(found[-1] if "Llama" in type(inner).__name__ else found.mean(0))
    return WEIGHT * contrastive_loss(torch.stack(states), torch.stack([r.target for r in rows]))


def step_by_hand(model: Any, micro_batches: Sequence[Sequence[Row]]) -> tuple[float, Any]:
    """Loss and weights of one step: cross entropy of all rows, and each micro-batch's term."""
    model = copy.deepcopy(model).eval()
    rows = [row for micro in micro_batches for row in micro]
    loss = loss_by_hand(model, rows)
    for micro in micro_batches:
        loss = loss + term_by_hand(model, micro) * len(micro) / len(rows)
    loss.backward()
    with torch.no_grad():
        for each in model.parameters():
            if each.grad is not None:
                each -= RATE * each.grad
    return loss.item(), weights(model)


def assert_stepped(run: Run, smoothing: float = 0.0) -> None:
    micro = [smoothed(expected_rows(run, batch), smoothing) for batch in run.batches.training]
    loss, stepped = step_by_hand(run.initial, micro)
    assert run.trainer.state.global_step == 1
    assert run.logged("loss") == [pytest.approx(loss, abs=1e-4)]
    assert_close(weights(run.model), stepped)
    plain = loss_by_hand(run.initial, [row for rows in micro for row in rows]).item()
    assert abs(loss - plain) > 0.01  # the term is not nothing


@pytest.mark.parametrize("name", ["bert", "distilbert", "deberta", "llama"])
def test_every_family_of_models_takes_the_step_computed_by_hand(name: str, tmp_path: Path) -> None:
    assert_stepped(make_run(tmp_path, model=make_family(name), rows=4, callback=TERM).train())


def test_micro_batches_count_as_their_rows_do(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=10, gradient_accumulation_steps=3, callback=TERM).train()
    assert [len(batch["labels"]) for batch in run.batches.training] == [8, 8, 4]
    assert_stepped(run)


def test_a_lora_wrapped_model_takes_the_step_computed_by_hand(tmp_path: Path) -> None:
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights="gaussian"
    )
    model = peft.get_peft_model(sharp_classifier(), config)
    run = make_run(tmp_path, model=model, rows=4, callback=TERM).train()
    micro = [expected_rows(run, batch) for batch in run.batches.training]
    loss, stepped = step_by_hand(run.initial, micro)
    assert run.logged("loss") == [pytest.approx(loss, abs=1e-4)]
    assert_close(weights(run.model), stepped)


def test_a_decoder_with_a_lora_and_checkpointing_takes_the_step_computed_by_hand(
    tmp_path: Path,
) -> None:
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["q_proj", "v_proj"], init_lora_weights="gaussian"
    )
    model = peft.get_peft_model(make_family("llama"), config)
    run = make_run(tmp_path, model=model, rows=4, gradient_checkpointing=True, callback=TERM)
    run.train()
    micro = [expected_rows(run, batch) for batch in run.batches.training]
    loss, stepped = step_by_hand(run.initial, micro)
    assert run.logged("loss") == [pytest.approx(loss, abs=1e-4)]
    assert_close(weights(run.model), stepped)


def test_label_smoothing_smooths_the_pairs_too(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=4, label_smoothing_factor=0.2, callback=TERM).train()
    assert_stepped(run, 0.2)


def test_the_weight_of_mixed_rows_is_none_of_the_pairs(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"rows": 4, "learning_rate": 0.0, "callback": TERM}
    run = make_run(tmp_path, collator={"mixed_weight": 0.25}, **settings).train()
    rows = expected_rows(run, run.batches.training[0])
    mixed = [Row(row.text, row.target, 0.25) for row in rows[4:]]
    expected = loss_by_hand(run.model, [*rows[:4], *mixed]) + term_by_hand(run.model, rows)
    assert run.logged("loss")[0] == pytest.approx(expected.item(), abs=1e-4)


def test_without_a_weight_no_hook_is_installed_and_nothing_changes(tmp_path: Path) -> None:
    hooks: list[int] = []
    runs = []
    for name, callback in {"none": {}, "zero": {"contrast": Contrast()}, "some": TERM}.items():
        run = make_run(tmp_path / name, rows=4, callback=callback)
        body = run.model.base_model
        run.model.register_forward_pre_hook(
            lambda *_, body=body: hooks.append(len(body._forward_hooks))
        )
        runs.append(run.train())
        assert not body._forward_hooks  # taken away again
    assert hooks == [0, 0, 1]
    assert_identical(weights(runs[0].model), weights(runs[1].model))
    assert runs[0].logged("loss") == runs[1].logged("loss") != runs[2].logged("loss")


def test_real_rows_alone_may_have_the_term(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=4, collator={"mix_ratio": 0.0}, callback=TERM).train()
    assert run.batches.training[0]["mixup_rows"].tolist() == [-1] * 4
    texts, labels = make_rows(4)
    rows = [Row(text, torch.eye(LABELS)[label]) for text, label in zip(texts, labels, strict=True)]
    loss, stepped = step_by_hand(run.initial, [rows])
    assert run.logged("loss") == [pytest.approx(loss, abs=1e-4)]
    assert_close(weights(run.model), stepped)
    assert run.used() == []


def test_by_default_generated_rows_are_not_compared(tmp_path: Path) -> None:
    run = make_run(
        tmp_path, rows=4, per_device_train_batch_size=4, callback={"contrast": Contrast(WEIGHT)}
    ).train()
    batch = run.batches.training[0]
    rows = expected_rows(run, batch)
    real = [row for row, at in zip(rows, batch["mixup_rows"].tolist(), strict=True) if at < 0]
    assert 2 <= len(real) < len(rows)
    before = copy.deepcopy(run.initial).eval()
    loss = loss_by_hand(before, rows) + term_by_hand(before, real)
    assert run.logged("loss")[0] == pytest.approx(loss.item(), abs=1e-4)
    compared = loss_by_hand(before, rows) + term_by_hand(before, rows)
    assert abs(loss.item() - compared.item()) > 0.01


def test_evaluation_has_no_term(tmp_path: Path) -> None:
    texts, labels = make_rows(6)
    run = make_run(
        tmp_path,
        rows=4,
        learning_rate=0.0,
        callback=TERM,
        eval_strategy="steps",
        eval_steps=1,
        trainer={"eval_dataset": make_dataset(texts, labels)},
    ).train()
    during = run.logged("eval_loss")[0]
    assert run.trainer.evaluate()["eval_loss"] == pytest.approx(during, abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"torch_compile": True, "torch_compile_backend": "eager"},
        {"gradient_checkpointing": True},
        {"bf16": True},
    ],
    ids=["compiled", "checkpointing", "bf16"],
)
def test_settings_that_wrap_the_model_leave_the_term(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    plain = make_run(tmp_path / "plain", rows=8, callback=TERM).train()
    run = make_run(tmp_path / "wrapped", rows=8, callback=TERM, **settings).train()
    tolerance = 0.05 if "bf16" in settings else 1e-4
    assert run.logged("loss") == pytest.approx(plain.logged("loss"), rel=tolerance)


def test_a_loss_of_the_trainers_own_cannot_have_the_term(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, compute_loss_func=soft_cross_entropy)
    with pytest.raises(InvalidInput, match="`contrastive_weight` must be 0 with `explicit_loss`"):
        make_mixup(contrastive_weight=1.0).attach(trainer)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"contrastive_weight": 1.0}, "`contrastive_weight` must be 0 in a loop"),
        ({"curriculum": "first:0.5"}, "`curriculum` must be 'constant' in a loop"),
    ],
)
def test_a_loop_without_a_trainer_refuses_both(setting: dict[str, Any], message: str) -> None:
    data = make_dataset(TEXTS, CLASSES)
    loader = DataLoader(data, batch_size=4, collate_fn=DataCollatorWithPadding(TOKENIZER))
    with pytest.raises(InvalidInput, match=message):
        make_mixup(TEXTS, CLASSES, **setting).batches(loader, TOKENIZER, epoch=0)
