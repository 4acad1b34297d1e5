"""Soft labels reach the loss of an unmodified Trainer, and nothing else does."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tiny import make_dataset, make_rows
from torch import Tensor
from trainer_runs import (
    FAMILIES,
    LABELS,
    assert_close,
    assert_identical,
    assert_moved,
    expected_rows,
    loss_by_hand,
    make_family,
    make_run,
    sharp_classifier,
    smoothed,
    step_by_hand,
    tokens,
    weighed,
    weights,
)

from mixup_hf import soft_cross_entropy


def test_the_first_loss_is_the_soft_cross_entropy_computed_by_hand(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=4, learning_rate=0.0).train()
    rows = expected_rows(run, run.batches.training[0])
    assert any(row.target.max() < 1 for row in rows)  # some labels are truly soft
    assert run.logged("loss")[0] == pytest.approx(loss_by_hand(run.model, rows).item(), abs=1e-4)


def test_one_step_of_sgd_is_the_step_computed_by_hand(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=4).train()
    loss, norm, stepped = step_by_hand(run.initial, expected_rows(run, run.batches.training[0]))
    assert run.logged("loss")[0] == pytest.approx(loss, abs=1e-4)
    assert run.logged("grad_norm")[0] == pytest.approx(norm, rel=1e-4)
    assert_close(weights(run.model), stepped)
    assert_moved(weights(run.initial), stepped)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_models_takes_the_same_step_as_by_hand(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, model=make_family(name), rows=6, gradient_accumulation_steps=2).train()
    rows = [row for batch in run.batches.training for row in expected_rows(run, batch)]
    loss, norm, stepped = step_by_hand(run.initial, rows)
    assert run.trainer.state.global_step == 1
    assert run.logged("loss")[0] == pytest.approx(loss, abs=1e-4)
    assert run.logged("grad_norm")[0] == pytest.approx(norm, rel=1e-3)
    assert_close(weights(run.model), stepped)


def test_a_model_that_takes_no_loss_arguments_averages_equal_micro_batches(tmp_path: Path) -> None:
    model = sharp_classifier()
    model.accepts_loss_kwargs = False  # the Trainer then counts no rows
    run = make_run(tmp_path, model=model, rows=8, gradient_accumulation_steps=2).train()
    rows = [row for batch in run.batches.training for row in expected_rows(run, batch)]
    loss, norm, stepped = step_by_hand(run.initial, rows)
    assert run.logged("grad_norm")[0] == pytest.approx(norm, rel=1e-4)
    assert_close(weights(run.model), stepped)


def test_the_model_itself_never_sees_labels_or_plugin_columns(tmp_path: Path) -> None:
    model = sharp_classifier()
    original, seen = model.forward, set()

    @wraps(original)
    def forward(**kwargs: Any) -> Any:
        seen.update(kwargs)
        return original(**kwargs)

    model.forward = forward
    run = make_run(tmp_path, model=model, rows=4).train()
    assert {"labels", "soft_labels", "mixup_rows"} <= set(run.batches.training[0])
    assert "input_ids" in seen
    assert not seen & {"labels", "soft_labels", "mixup_rows"}


def test_evaluation_with_class_indices_works_and_the_problem_type_stays(tmp_path: Path) -> None:
    texts, labels = make_rows(6, LABELS)
    run = make_run(tmp_path, rows=8, trainer={"eval_dataset": make_dataset(texts, labels)})
    run.train()
    measured = run.trainer.evaluate()
    assert run.model.config.problem_type in (None, "single_label_classification")
    encoded = [torch.tensor([tokens(text)]) for text in texts]
    logits = torch.cat([run.model(input_ids=ids).logits for ids in encoded])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).item()
    assert measured["eval_loss"] == pytest.approx(expected, abs=1e-4)
    assert run.model.config.problem_type == "single_label_classification"


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_accumulating_two_micro_batches_is_one_step_on_all_their_rows(
    smoothing: float, tmp_path: Path
) -> None:
    """The same 16 rows as two micro-batches of 8, and by hand as one."""
    run = make_run(
        tmp_path,
        rows=8,
        gradient_accumulation_steps=2,
        label_smoothing_factor=smoothing,
    ).train()
    assert [len(batch["input_ids"]) for batch in run.batches.training] == [8, 8]
    rows = [row for batch in run.batches.training for row in expected_rows(run, batch)]
    loss, norm, stepped = step_by_hand(run.initial, smoothed(rows, smoothing))
    assert run.logged("loss") == [pytest.approx(loss, abs=1e-4)]
    assert run.logged("grad_norm") == [pytest.approx(norm, rel=1e-4)]
    assert_close(weights(run.model), stepped)


def test_every_row_of_an_uneven_accumulation_counts_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=10, gradient_accumulation_steps=3).train()
    real = [int((batch["mixup_rows"] < 0).sum()) for batch in run.batches.training]
    assert real == [4, 4, 2]
    rows = [row for batch in run.batches.training for row in expected_rows(run, batch)]
    loss, norm, stepped = step_by_hand(run.initial, rows)
    assert run.logged("loss") == [pytest.approx(loss, abs=1e-4)]
    assert run.logged("grad_norm") == [pytest.approx(norm, rel=1e-4)]
    assert_close(weights(run.model), stepped)


def test_a_last_short_accumulation_is_divided_by_its_own_rows(tmp_path: Path) -> None:
    """10 rows as 4, 4 | 2: the second step holds one micro-batch of 4 rows, mixed ones included."""
    run = make_run(tmp_path, rows=10, gradient_accumulation_steps=2, learning_rate=0.0).train()
    last = run.batches.training[-1]
    assert len(last["labels"]) == 4
    expected = loss_by_hand(run.model, expected_rows(run, last)).item()
    assert run.logged("loss")[1] == pytest.approx(expected, abs=1e-4)


def test_label_smoothing_smooths_the_soft_labels(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=4, label_smoothing_factor=0.3).train()
    plain = expected_rows(run, run.batches.training[0])
    loss, norm, stepped = step_by_hand(run.initial, smoothed(plain, 0.3))
    assert run.logged("loss")[0] == pytest.approx(loss, abs=1e-4)
    assert_close(weights(run.model), stepped)
    assert loss != pytest.approx(step_by_hand(run.initial, plain)[0], abs=1e-3)


def test_label_smoothing_leaves_evaluation_during_training_as_it_is(tmp_path: Path) -> None:
    texts, labels = make_rows(6, LABELS)
    run = make_run(
        tmp_path,
        rows=4,
        learning_rate=0.0,
        label_smoothing_factor=0.3,
        eval_strategy="steps",
        eval_steps=1,
        trainer={"eval_dataset": make_dataset(texts, labels)},
    ).train()
    during = run.logged("eval_loss")[0]
    assert run.trainer.evaluate()["eval_loss"] == pytest.approx(during, abs=1e-6)


@pytest.mark.parametrize("weight", [0.25, 2.0])
def test_a_mixed_row_weighs_mixed_weight_and_the_divisor_stays_the_rows(
    weight: float, tmp_path: Path
) -> None:
    run = make_run(tmp_path, rows=4, collator={"mixed_weight": weight}).train()
    batch = run.batches.training[0]
    rows = weighed(expected_rows(run, batch), batch, weight)
    loss, norm, stepped = step_by_hand(run.initial, rows)
    assert run.logged("loss")[0] == pytest.approx(loss, abs=1e-4)
    assert_close(weights(run.model), stepped)


@pytest.mark.parametrize(
    ("ratio", "mixed"), [(0.5, [4, 4, 2]), (0.2, [1, 1, 0]), (0.75, [12, 12, 6]), (0.1, [0, 0, 1])]
)
def test_mix_ratio_is_the_share_of_mixed_rows_in_each_batch(
    ratio: float, mixed: list[int], tmp_path: Path
) -> None:
    run = make_run(tmp_path, rows=10, collator={"mix_ratio": ratio}).train()
    flags = [(batch["mixup_rows"] >= 0).tolist() for batch in run.batches.training]
    assert [sum(flag) for flag in flags] == mixed
    assert [len(flag) - sum(flag) for flag in flags] == [4, 4, 2]
    assert all(flag == sorted(flag) for flag in flags)  # real rows come first


def test_labels_are_indices_and_soft_labels_are_distributions(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=8).train()
    for batch in run.batches.training:
        rows = expected_rows(run, batch)
        torch.testing.assert_close(batch["soft_labels"], torch.stack([row.target for row in rows]))
        assert batch["labels"].dtype == torch.int64
        shares = batch["soft_labels"].gather(1, batch["labels"][:, None])[:, 0]
        assert torch.equal(shares, batch["soft_labels"].max(-1).values)


def test_no_mixed_row_comes_twice_before_all_have_come_in_a_batch(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=8, collator={"mix_ratio": 0.75}).train()
    for batch in run.batches.training:
        drawn = batch["mixup_rows"][batch["mixup_rows"] >= 0].tolist()
        assert len(drawn) == len(set(drawn)) == 12


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_explicit_loss_trains_the_same_weights_as_the_hooks(
    smoothing: float, tmp_path: Path
) -> None:
    settings = {"rows": 10, "gradient_accumulation_steps": 2, "label_smoothing_factor": smoothing}
    hooked = make_run(tmp_path / "hooks", **settings).train()
    explicit = make_run(
        tmp_path / "explicit",
        collator={"label_format": "labels"},
        trainer={"compute_loss_func": soft_cross_entropy},
        **settings,
    ).train()
    assert_close(weights(explicit.model), weights(hooked.model), 1e-6)
    assert_moved(weights(hooked.initial), weights(hooked.model))
    assert explicit.logged("loss") == pytest.approx(hooked.logged("loss"), abs=1e-5)
    assert explicit.used() == hooked.used()


def test_the_explicit_loss_evaluates_class_indices(tmp_path: Path) -> None:
    dataset = make_dataset(*make_rows(6, LABELS))
    losses = []
    for settings in (
        {"collator": {"label_format": "labels"}, "compute_loss_func": soft_cross_entropy},
        {"collator": {"label_format": "soft_labels"}, "compute_loss_func": None},
    ):
        run = make_run(
            tmp_path / str(len(losses)),
            collator=settings["collator"],
            trainer={
                "eval_dataset": dataset,
                "compute_loss_func": settings["compute_loss_func"],
            },
        ).train()
        losses.append(run.trainer.evaluate()["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_forgetting_the_explicit_loss_is_an_error_before_the_first_step(tmp_path: Path) -> None:
    run = make_run(tmp_path, collator={"label_format": "labels"})
    with pytest.raises(RuntimeError, match="compute_loss_func=soft_cross_entropy"):
        run.train()
    assert_identical(weights(run.initial), weights(run.model))


def test_bf16_autocast_trains_on_the_same_loss_in_float32(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=4, learning_rate=0.0, bf16=True)
    logits: list[Tensor] = []
    run.model.classifier.register_forward_hook(lambda *call: logits.append(call[2].detach()))
    run.train()
    assert logits[0].dtype == torch.bfloat16  # autocast was on
    targets = torch.stack([row.target for row in expected_rows(run, run.batches.training[0])])
    expected = -(targets * logits[0].float().log_softmax(-1)).sum(-1).mean().item()
    assert run.logged("loss")[0] == pytest.approx(expected, abs=1e-4)


def test_a_lora_wrapped_model_takes_the_step_computed_by_hand(tmp_path: Path) -> None:
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights="gaussian"
    )
    model = peft.get_peft_model(sharp_classifier(), config)
    run = make_run(tmp_path, model=model, rows=6, gradient_accumulation_steps=2).train()
    rows = [row for batch in run.batches.training for row in expected_rows(run, batch)]
    loss, norm, stepped = step_by_hand(run.initial, rows)
    assert run.logged("loss") == [pytest.approx(loss, abs=1e-4)]
    assert_close(weights(run.model), stepped)
    assert_moved(weights(run.initial), stepped)


def test_a_model_that_returns_tuples_takes_the_same_step(tmp_path: Path) -> None:
    model = sharp_classifier()
    reference = make_run(tmp_path / "dict", rows=4).train()
    model.config.return_dict = False
    run = make_run(tmp_path / "tuple", model=model, rows=4).train()
    assert_close(weights(run.model), weights(reference.model), 1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"torch_compile": True, "torch_compile_backend": "eager"},
        {"gradient_checkpointing": True},
        {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"},
    ],
    ids=["compiled", "checkpointing", "best"],
)
def test_settings_that_wrap_the_model_leave_the_step_as_it_is(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    dataset = make_dataset(*make_rows(6, LABELS))
    plain = make_run(tmp_path / "plain", rows=8, label_smoothing_factor=0.1).train()
    run = make_run(
        tmp_path / "wrapped",
        rows=8,
        label_smoothing_factor=0.1,
        trainer={"eval_dataset": dataset},
        **settings,
    ).train()
    assert run.logged("loss") == pytest.approx(plain.logged("loss"), abs=1e-4)
    assert_close(weights(run.model), weights(plain.model))
    assert run.used() == plain.used()


def test_a_model_made_by_model_init_is_the_one_that_gets_the_hooks(tmp_path: Path) -> None:
    plain = make_run(tmp_path / "plain").train()
    run = make_run(tmp_path / "init")
    given = run.model
    run.trainer.model_init = lambda: sharp_classifier()
    run.train()
    assert run.model is not given
    assert_identical(weights(run.model), weights(plain.model))
