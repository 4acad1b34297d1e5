"""What the plugin cannot do right it refuses, and says what to do instead."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import make_classifier, make_dataset, make_rows, word_tokenizer
from torch.utils.data import DataLoader
from trainer_runs import LABELS, Run, make_run, sharp_classifier
from transformers import (
    DataCollatorWithPadding,
    TrainerControl,
    TrainerState,
)

from mixup_hf import MixupCollator, runtime, soft_cross_entropy
from mixup_hf.training import unsupported

ERRORS = (RuntimeError, ValueError)


@pytest.mark.parametrize("remove", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_callback_whose_collator_the_trainer_lacks_is_an_error_at_the_first_step(
    smoothing: float, remove: bool, tmp_path: Path
) -> None:
    other = DataCollatorWithPadding(word_tokenizer(classifier=True))
    run = make_run(
        tmp_path,
        trainer={"data_collator": other},
        label_smoothing_factor=smoothing,
        remove_unused_columns=remove,
    )
    with pytest.raises(ERRORS, match="another collator"):
        run.train()
    assert run.trainer.state.global_step <= 1


def test_so_it_is_on_the_explicit_route(tmp_path: Path) -> None:
    other = DataCollatorWithPadding(word_tokenizer(classifier=True))
    run = make_run(
        tmp_path,
        collator={"label_format": "labels"},
        trainer={"data_collator": other, "compute_loss_func": soft_cross_entropy},
    )
    with pytest.raises(ERRORS, match="another collator"):
        run.train()


def test_so_it_is_with_a_torch_dataset_whose_columns_the_trainer_removes(tmp_path: Path) -> None:
    other = DataCollatorWithPadding(word_tokenizer(classifier=True))
    rows: Any = [dict(row) for row in make_dataset(*make_rows(8, LABELS))]
    run = make_run(tmp_path, dataset=rows, trainer={"data_collator": other})
    with pytest.raises(ERRORS, match="another collator"):
        run.train()


def test_so_it_is_with_the_mixup_collator_of_another_callback(tmp_path: Path) -> None:
    other = MixupCollator(word_tokenizer(classifier=True), num_labels=LABELS, mix_ratio=0.2)
    run = make_run(tmp_path, trainer={"data_collator": other})
    with pytest.raises(ERRORS, match="another collator"):
        run.train()


def begin(run: Run, *, args: Any = None, loader: Any = None) -> None:
    """What the Trainer does at the start of training."""
    run.callback.on_train_begin(
        args or run.trainer.args,
        TrainerState(),
        TrainerControl(),
        train_dataloader=loader or run.trainer.get_train_dataloader(),
        model=run.model,
    )


def test_data_parallel_replicas_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    args = SimpleNamespace(n_gpu=2, output_dir=str(tmp_path), label_smoothing_factor=0.0)
    with pytest.raises(ValueError, match="2 GPUs.*accelerate launch"):
        begin(run, args=args)
    assert len(run.model._forward_hooks) == 0


def test_batches_cut_apart_between_processes_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, accelerator_config={"dispatch_batches": True})
    with pytest.raises(ValueError, match="'dispatch_batches': False"):
        run.train()


def test_a_loader_that_accelerate_did_not_prepare_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ValueError, match="get_train_dataloader"):
        begin(run, loader=DataLoader([1, 2]))


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_other_problem_types_are_refused_before_training(problem: str, tmp_path: Path) -> None:
    model = sharp_classifier()
    model.config.problem_type = problem
    run = make_run(tmp_path, model=model)
    with pytest.raises(ValueError, match=f"single_label_classification.*{problem}"):
        run.train()
    assert run.trainer.state.global_step == 0


def test_labels_that_are_vectors_are_refused(tmp_path: Path) -> None:
    """Multi-label data, although the model does not say so."""
    texts, _ = make_rows(8, LABELS)
    data = make_dataset(texts, [[1.0, 0.0, 1.0]] * 8)
    run = make_run(tmp_path, dataset=data)
    with pytest.raises(ValueError, match="multi-label"):
        run.train()


def test_labels_that_are_numbers_are_refused(tmp_path: Path) -> None:
    texts, _ = make_rows(8, LABELS)
    run = make_run(tmp_path, dataset=make_dataset(texts, [0.5] * 8))
    with pytest.raises(ValueError, match="regression"):
        run.train()


def test_a_batch_without_labels_is_refused(tmp_path: Path) -> None:
    data = make_dataset(*make_rows(8, LABELS)).remove_columns("label")
    run = make_run(tmp_path, dataset=data)
    with pytest.raises(ValueError, match="'labels'"):
        run.train()


def test_a_label_beyond_the_classes_is_refused(tmp_path: Path) -> None:
    texts, labels = make_rows(8, LABELS)
    run = make_run(tmp_path, dataset=make_dataset(texts, [label + 1 for label in labels]))
    with pytest.raises(ERRORS, match="[Cc]lass"):
        run.train()


def test_a_model_with_other_classes_than_the_collator_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, model=make_classifier(LABELS + 2))
    with pytest.raises(ERRORS, match="num_labels"):
        run.train()


def test_the_plain_trainer_is_not_touched_by_a_ratio_of_zero(tmp_path: Path) -> None:
    """Refusals are for mixing: without mixing there is nothing to refuse."""
    model = sharp_classifier()
    model.config.problem_type = "multi_label_classification"
    texts, _ = make_rows(8, LABELS)
    run = make_run(
        tmp_path,
        model=model,
        dataset=make_dataset(texts, [[1.0, 0.0, 1.0]] * 8),
        collator={"mix_ratio": 0.0},
    ).train()
    assert run.trainer.state.global_step == 2


@pytest.mark.parametrize(
    ("asked", "flag"), [({"fsdp": True}, None), ({"deepspeed": {}}, "DEEPSPEED"), ({}, "FSDP")]
)
def test_sharding_that_accelerate_leaves_out_is_refused(
    asked: dict[str, Any], flag: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CPUs it says nothing, and every process holds the whole model."""
    for name in ("FSDP", "DEEPSPEED"):
        monkeypatch.delenv(f"ACCELERATE_USE_{name}", raising=False)
    if flag is not None:
        monkeypatch.setenv(f"ACCELERATE_USE_{flag}", "true")
    args: Any = SimpleNamespace(device=torch.device("cpu"), **asked)
    unsupported._refuse_unsharded(args)  # one process has nobody to share with
    monkeypatch.setattr(runtime, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="leaves it out on 'cpu' devices"):
        unsupported._refuse_unsharded(args)
    monkeypatch.setattr(runtime, "is_sharded", lambda: True)
    unsupported._refuse_unsharded(args)


def test_without_sharding_there_is_nothing_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FSDP", "DEEPSPEED"):
        monkeypatch.delenv(f"ACCELERATE_USE_{name}", raising=False)
    monkeypatch.setattr(runtime, "world_size", lambda: 2)
    unsupported._refuse_unsharded(SimpleNamespace(fsdp=[], deepspeed=None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("started", "together", "refused"),
    [("2", 1, True), ("2", 2, False), ("1", 1, False), ("", 1, False), (None, 1, False)],
)
def test_processes_that_would_train_apart_are_refused(
    started: str | None, together: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CPUs, transformers joins them only with `use_cpu`, and says nothing without."""
    if started is None:
        monkeypatch.delenv("WORLD_SIZE", raising=False)
    else:
        monkeypatch.setenv("WORLD_SIZE", started)
    args: Any = SimpleNamespace(world_size=together)
    if not refused:
        unsupported._refuse_alone(args)
        return
    with pytest.raises(ValueError, match=r"started 2 processes, but each would train alone"):
        unsupported._refuse_alone(args)


def test_a_trainer_whose_process_would_train_alone_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="each would train alone"):
        run.train()


def test_batches_that_cannot_be_counted_are_refused() -> None:
    stream = SimpleNamespace(num_shards=2)
    loader = SimpleNamespace(dataset=stream)
    named = {"train_sampling_strategy": "random", "dataloader_num_workers": 2}
    unsupported._refuse_batches(SimpleNamespace(**named), loader)
    with pytest.raises(ValueError, match="2 shards"):
        unsupported._refuse_batches(
            SimpleNamespace(**named | {"dataloader_num_workers": 3}), loader
        )
    with pytest.raises(ValueError, match="batch_rebalance"):
        named["train_sampling_strategy"] = "batch_rebalance"
        unsupported._refuse_batches(SimpleNamespace(**named), loader)
