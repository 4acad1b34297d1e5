"""`source: task`: embeddings of the model in training are mixed, and the aligner follows it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tiny import bert_config, make_classifier, make_inverter, make_rows, word_tokenizer
from trainer_runs import LABELS, Run, assert_identical, make_run, weights
from transformers import BertForSequenceClassification

from mixup_hf import InversedMixup, Inverter, MixupConfig
from mixup_hf.training.task_encoder import FollowingInverter

ROWS = 12  # three steps an epoch
TEXTS, CLASSES = make_rows(ROWS, LABELS)


def prepare(folder: Path, inverter: Inverter, *, mixup: dict[str, Any], **settings: Any) -> Run:
    config = MixupConfig(
        source="task", max_new_tokens=4, refine_steps=3, intrusion="off", temperature=1.0, **mixup
    )
    plugin = InversedMixup(inverter, TEXTS, CLASSES, num_labels=LABELS, config=config)
    kwargs = plugin.trainer_kwargs(word_tokenizer(classifier=True))
    return make_run(folder, rows=ROWS, trainer=kwargs, **settings)


def mixed_in_each_step(run: Run) -> list[int]:
    return [int((batch["mixup_rows"] >= 0).sum()) for batch in run.batches.training]


@pytest.mark.parametrize("warmup", [0, 1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_is_mixed_while_the_model_warms_up(
    tmp_path: Path, warmup: int, workers: int
) -> None:
    run = prepare(
        tmp_path,
        make_inverter(),
        mixup={"warmup_epochs": warmup},
        num_train_epochs=3,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
    ).train()
    assert mixed_in_each_step(run) == [0] * 3 * warmup + [4] * 3 * (3 - warmup)
    assert len(run.logged("loss")) == 9


def test_the_aligner_is_refined_and_the_one_given_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inverter = make_inverter()
    before = {name: value.clone() for name, value in inverter.aligner.state_dict().items()}
    with caplog.at_level(logging.INFO):
        run = prepare(tmp_path, inverter, mixup={}, num_train_epochs=3).train()
    assert "refined for the model in training in" in caplog.text
    assert "stale" in caplog.text  # looked at before the second refill
    for name, value in inverter.aligner.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert {row.aligner_fingerprint for row, _ in _used(run)} == {"f00d+task"}


def _used(run: Run) -> list[Any]:
    (callback,) = (
        each
        for each in run.trainer.callback_handler.callbacks
        if type(each).__name__ == "MixupCallback"
    )
    return callback.used_rows()


def test_embeddings_are_those_of_the_model_as_it_is(tmp_path: Path) -> None:
    model = make_classifier(LABELS, dropout=0.3).train()
    follower = FollowingInverter(make_inverter(), TEXTS, word_tokenizer(classifier=True), steps=2)
    follower.inverter.llm.eval()
    follower.follow(model)
    assert not any(each.training for each in follower.inverter.llm.modules())  # it decodes
    first = follower.encode(TEXTS)
    assert torch.equal(first, follower.encode(TEXTS))  # no dropout
    assert model.training
    assert all(value.requires_grad for value in model.parameters())
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.1)
    assert not torch.allclose(follower.encode(TEXTS), first, atol=1e-3)


def test_a_stale_aligner_is_refreshed_and_a_fresh_one_is_left_alone() -> None:
    model = make_classifier(LABELS, dropout=0.0)
    follower = FollowingInverter(
        make_inverter(), TEXTS, word_tokenizer(classifier=True), steps=8, threshold=0.05
    )
    assert follower.follow(model) == 0.0
    projector = follower.inverter.aligner.projector
    kept = {name: value.clone() for name, value in projector.state_dict().items()}
    assert follower.follow(model) == pytest.approx(0.0, abs=1e-3)
    assert all(torch.equal(value, kept[name]) for name, value in projector.state_dict().items())
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(-1.0)
    reference = follower.reference
    follower.threshold = -10.0  # whatever this change of the model did to the tiny LLM
    follower.follow(model)
    assert not all(torch.equal(value, kept[name]) for name, value in projector.state_dict().items())
    assert follower.reference != reference


def test_refining_lowers_the_loss_on_the_models_embeddings() -> None:
    model = make_classifier(LABELS, dropout=0.0)
    losses = []
    for steps in (1, 60):
        follower = FollowingInverter(
            make_inverter(), TEXTS, word_tokenizer(classifier=True), steps=steps
        )
        follower.follow(model)
        losses.append(follower.reference)
    assert losses[1] < losses[0] - 0.05


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, step: int) -> None:
    """From the warm-up, from its end, and from later; the checkpoint holds the projector."""
    settings: dict[str, Any] = {
        "mixup": {},
        "num_train_epochs": 3,
        "save_strategy": "steps",
        "save_steps": 1,
        "train_sampling_strategy": "random",
    }
    whole = prepare(tmp_path / "whole", make_inverter(), **settings).train()
    checkpoint = tmp_path / "again" / f"checkpoint-{step}"
    shutil.copytree(tmp_path / "whole" / checkpoint.name, checkpoint)
    again = prepare(tmp_path / "again", make_inverter(), **settings)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert_identical(weights(again.model), weights(whole.model))
    assert mixed_in_each_step(again) == mixed_in_each_step(whole)[step:]


def test_a_model_of_another_width_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = BertForSequenceClassification(bert_config(hidden_size=32, num_labels=LABELS))
    run = prepare(tmp_path, make_inverter(), mixup={}, model=model, num_train_epochs=2)
    with pytest.raises(ValueError, match=r"vectors of 16 entries.*has 32.*source: frozen"):
        run.train()


def test_a_lora_wrapped_model_is_followed_with_its_lora() -> None:
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights="gaussian"
    )
    model = peft.get_peft_model(make_classifier(LABELS, dropout=0.0), config)
    follower = FollowingInverter(make_inverter(), TEXTS, word_tokenizer(classifier=True), steps=1)
    follower.follow(model)
    before = follower.encode(TEXTS)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.add_(1.0)
    assert not torch.allclose(follower.encode(TEXTS), before, atol=1e-3)


def test_prompt_tuning_is_refused_with_the_way_out() -> None:
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    model = peft.get_peft_model(make_classifier(LABELS), config)
    follower = FollowingInverter(make_inverter(), TEXTS, word_tokenizer(classifier=True), steps=1)
    with pytest.raises(ValueError, match="prompt tuning.*source: frozen"):
        follower.follow(model)


def test_staleness_is_decided_for_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On each process the main process's figure counts, whatever it measures itself."""
    follower = FollowingInverter(make_inverter(), TEXTS, word_tokenizer(classifier=True), steps=1)
    model = make_classifier(LABELS, dropout=0.0)
    follower.follow(model)
    monkeypatch.setattr("mixup_hf.runtime.agree", lambda value: 5.0)
    assert follower.follow(model) == 5.0


def test_unknown_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="`source` must be one of"):
        MixupConfig(source="other")


def test_without_a_model_in_training_nothing_can_be_generated() -> None:
    config = MixupConfig(source="task")
    plugin = InversedMixup(make_inverter(), TEXTS, CLASSES, num_labels=LABELS, config=config)
    with pytest.raises(ValueError, match="there is none here.*source: frozen"):
        plugin.generate(3)


def test_a_curriculum_counts_the_warm_up_and_follows_no_model_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of four epochs: the warm-up, and the first epoch that could mix, have no rows."""
    followed: list[Any] = []
    follow = FollowingInverter.follow

    def counted(self: FollowingInverter, model: Any) -> float:
        followed.append(model)
        return follow(self, model)

    monkeypatch.setattr(FollowingInverter, "follow", counted)
    mixup = {"warmup_epochs": 1, "curriculum": "last:0.5"}
    run = prepare(tmp_path, make_inverter(), mixup=mixup, num_train_epochs=4).train()
    assert mixed_in_each_step(run) == [0] * 6 + [4] * 6
    assert len(followed) == 2
