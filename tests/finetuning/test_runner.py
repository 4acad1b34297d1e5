"""`finetune` end to end: what it reads, what chooses the checkpoint, what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finetuning_data import classes
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer

from mixup_hf import FinetuneConfig, finetune
from mixup_hf.errors import InvalidInput
from mixup_hf.finetuning.arguments import training_arguments
from mixup_hf.finetuning.results import refuse_inputs

Make = Callable[..., FinetuneConfig]


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every evaluation and prediction of a Trainer: its prefix and number of rows."""
    seen: list[tuple[str, int]] = []
    plain = Trainer.evaluation_loop

    def loop(self: Any, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((kwargs["metric_key_prefix"], len(dataloader.dataset)))
        return plain(self, dataloader, *args, **kwargs)

    monkeypatch.setattr(Trainer, "evaluation_loop", loop)
    return seen


def test_the_model_and_its_tokenizer_are_saved_with_their_labels(
    make_config: Make, tmp_path: Path
) -> None:
    metrics = finetune(make_config())
    output = tmp_path / "out"
    model = AutoModelForSequenceClassification.from_pretrained(output)
    assert model.config.id2label == dict(enumerate(["film", "news", "sport"]))
    assert model.config.label2id["news"] == 1
    assert AutoTokenizer.from_pretrained(output)("the bank")["input_ids"]
    assert not list(output.rglob("*.bin"))
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert metrics["classes"] == ["film", "news", "sport"]


def test_without_saving_there_is_no_model(make_config: Make, tmp_path: Path) -> None:
    finetune(make_config(save_model=False))
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("data", "train", "held"),
    [
        ({"validation_share": 0.25}, 18, 6),
        ({"validation_rows_per_class": 1}, 21, 3),
        ({"validation_rows_per_class": 2, "shots": 4}, 12, 6),
    ],
)
def test_validation_rows_choose_the_checkpoint_and_the_test_rows_are_read_once(
    make_config: Make,
    evaluated: list[tuple[str, int]],
    tmp_path: Path,
    data: dict[str, Any],
    train: int,
    held: int,
) -> None:
    metrics = finetune(make_config(data=data))
    assert evaluated == [("eval", held), ("eval", held), ("test", 12)]
    assert (metrics["train_rows"], metrics["validation_rows"]) == (train, held)
    assert 0 <= metrics["best_validation_accuracy"] <= 1
    assert not list((tmp_path / "out").glob("checkpoint-*"))  # the best one is the saved model
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_without_validation_rows_nothing_may_be_evaluated_during_training(
    make_config: Make, evaluated: list[tuple[str, int]]
) -> None:
    finetune(make_config())
    assert evaluated == [("test", 12)]
    for asked in ({"eval_strategy": "epoch"}, {"load_best_model_at_end": True}):
        with pytest.raises(ValueError, match="no validation rows.*`data.validation_file`"):
            finetune(make_config(training=asked))


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_that_this_cpu_is_slow_in_is_answered_before_training(
    make_config: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fast: bool,
) -> None:
    monkeypatch.setattr("mixup_hf.inverter.quantization.bf16_is_fast", lambda device: fast)
    config = make_config(training={"bf16": True, "use_cpu": True})
    assert training_arguments(config, "single_label_classification").bf16
    assert ("Set `training.bf16` to false" in caplog.text) is not fast


def test_a_validation_split_drives_auto_off(
    make_config: Make, evaluated: list[tuple[str, int]]
) -> None:
    mixup = {"auto_off": True}
    finetune(make_config(data={"validation_share": 0.25}, mixup=mixup))
    assert [name for name, _ in evaluated] == ["eval", "eval", "test"]


def test_files_of_an_earlier_run_are_removed_and_foreign_ones_stay(
    make_config: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    finetune(make_config(mixup={}))
    output = tmp_path / "out"
    (output / "notes.txt").write_text("mine")
    assert (output / "mixed.jsonl").is_file() and (output / "_mixup_hf").is_dir()
    (output / "quality.json").write_text("{}")  # measured on the rows of then
    (output / "mixup_hf" / "pool").mkdir(parents=True)  # of an older version
    finetune(make_config())
    for gone in ("mixed.jsonl", "quality.json", "_mixup_hf", "mixup_hf"):  # and the rows' pool
        assert not (output / gone).exists()
    assert (output / "notes.txt").read_text() == "mine"
    assert "Removed files of an earlier run" in caplog.text and "mixed.jsonl" in caplog.text


def test_what_a_run_reads_is_not_cleared(make_config: Make, tmp_path: Path) -> None:
    config, out = make_config(), tmp_path / "out"
    (out / "baseline" / "checkpoint-1").mkdir(parents=True)
    (out / "elsewhere").mkdir()
    for name in ("model.safetensors", "mixed.jsonl", "baseline/checkpoint-1/model.safetensors"):
        (out / name).write_bytes(b"made for hours")
    for model in (out, out / ".", out / "baseline", out / "baseline" / "checkpoint-1"):
        with pytest.raises(InvalidInput, match=r"`model` must not be what a run into"):
            finetune(replace(config, model=str(model)))
    rows = replace(config.mixup, rows_file=str(out / "mixed.jsonl"))
    with pytest.raises(InvalidInput, match=r"`mixup.rows_file` must not be what"):
        finetune(replace(config, mixup=rows))
    with pytest.raises(InvalidInput, match=r"`mixup.aligner` must not be what"):
        finetune(replace(config, mixup=replace(config.mixup, aligner=str(out))))
    texts = replace(config.data, train_file=str(out / "mixed.jsonl"))
    with pytest.raises(InvalidInput, match=r"`data.train_file` must not be what"):
        finetune(replace(config, data=texts))
    assert len([*out.rglob("*.*")]) == 3
    refuse_inputs(out, {"model": str(out / "elsewhere")})  # a folder that stays
    (out / "train.jsonl").touch()
    refuse_inputs(out, {"data.train_file": str(out / "train.jsonl")})  # a file that stays


def test_checkpoints_of_an_earlier_run_are_refused_or_resumed(make_config: Make) -> None:
    keeping = {"save_strategy": "epoch"}
    finetune(make_config(training=keeping))
    with pytest.raises(ValueError, match="holds checkpoints.*Resume it with"):
        finetune(make_config(training=keeping))
    finetune(make_config(training=keeping | {"resume_from_checkpoint": True}))


def test_there_must_be_a_checkpoint_to_resume_from(make_config: Make) -> None:
    with pytest.raises(InvalidInput, match="has no checkpoint to resume from"):
        finetune(make_config(training={"resume_from_checkpoint": True}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": (classes(24), ["opera"] * 12)}, "opera"),
        ({"training": {"lr": 0.3}}, "`training.lr` is not an argument"),
        ({"training": {"learning_rat": 0.3}}, "Did you mean learning_rate"),
        ({"training": {"learning_rate": "fast"}}, "`training.learning_rate` must be a number"),
        ({"training": {"warmup_steps": -1}}, "`training` is not accepted"),
        ({"compare": True}, "`mixup.enabled` is false"),
        ({"data": {"validation_rows_per_class": 99}}, "`data.validation_rows_per_class`"),
        ({"output_dir": "/proc/nowhere"}, "`output_dir` must be a folder that can be written"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("mixup_hf.finetuning.runner.resolve", None)
    if "compare" not in changes:
        changes = changes | {"mixup": {}}
    monkeypatch.setattr("mixup_hf.finetuning.runner.InversedMixup", None)
    output = changes.pop("output_dir", None)
    config = make_config(**changes)
    if output is not None:
        config = replace(config, output_dir=output)
    with pytest.raises(ValueError, match=message):
        finetune(config)


def test_unlabelled_texts_of_a_file_are_trained_on_with_the_committees_labels(
    make_config: Make, tmp_path: Path
) -> None:
    more = tmp_path / "more.txt"
    more.write_text("new big price\nold team\nfilm star song\n")
    data = {"unlabeled_file": str(more), "label_descriptions": {"news": "about politics"}}
    committee = {"label_source": "committee", "committee": ("label_names", "encoder")}
    finetune(make_config(data=data, mixup=committee))
    lines = (tmp_path / "out" / "mixed.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    taken = {row["text"] for row in rows if row["method"] == "unlabeled"}
    assert taken == set(more.read_text().splitlines())
    assert all(set(row["votes"]) == {"label_names", "encoder"} for row in rows)
    with pytest.raises(ValueError, match=r"`data\.unlabeled_file` needs `mixup\.label_source`"):
        make_config(data=data, mixup={"label_source": "parents"})
    with pytest.raises(ValueError, match=r"incompatible with `mixup\.rows_file`"):
        make_config(data=data, mixup=committee | {"rows_file": "rows.jsonl"})
    with pytest.raises(ValueError, match="`label_descriptions` must be one of"):
        finetune(make_config(data={"label_descriptions": {"opera": "x"}}, mixup=committee))


TASKS = {
    "multi_label_classification": (
        [[row % 2, row // 2 % 2, 1] for row in range(24)],
        [[1, 0, 1]] * 6 + [[0, 1, 1]] * 6,
        {"test_micro_f1", "test_macro_f1", "test_exact_match"},
    ),
    "regression": (
        [row / 10 for row in range(24)],
        [row / 5 for row in range(12)],
        {"test_mae", "test_rmse", "test_spearman"},
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_other_tasks_are_trained_and_measured(make_config: Make, tmp_path: Path, task: str) -> None:
    train, test, reported = TASKS[task]
    data = {"validation_share": 0.25}
    metrics = finetune(make_config(labels=(train, test), data=data, mixup={}, compare=True))
    assert metrics["problem_type"] == task
    assert reported <= set(metrics)
    assert metrics["mixed_rows"] > 0
    assert set(metrics["comparison"]["metrics"]) == reported | {"test_loss"}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.problem_type == task
    assert model.config.num_labels == (1 if task == "regression" else 3)


def test_whole_floats_are_regression_when_stated(make_config: Make) -> None:
    labels = ([float(row % 5) for row in range(24)], [float(row % 5) for row in range(12)])
    with pytest.raises(ValueError, match="whole numbers"):
        finetune(make_config(labels=labels))
    metrics = finetune(make_config(labels=labels, data={"problem_type": "regression"}, mixup={}))
    assert metrics["problem_type"] == "regression" and metrics["mixed_rows"] > 0
