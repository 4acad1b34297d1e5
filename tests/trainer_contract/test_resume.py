"""A resumed run is the uninterrupted one: weights, rows and counts."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny import make_classifier, make_dataset, make_producer, make_rows, word_tokenizer
from trainer_runs import (
    LABELS,
    CountingProducer,
    Run,
    assert_identical,
    assert_moved,
    make_arguments,
    make_run,
    weights,
)
from transformers import DataCollatorWithPadding, Trainer

from mixup_hf import InversedMixup, MixupConfig, soft_cross_entropy
from mixup_hf.inverter.model import Inverter
from mixup_hf.training import checkpointing

ROWS = 12  # three steps an epoch
SETTINGS: dict[str, Any] = {
    "rows": ROWS,
    "num_train_epochs": 3,
    "optim": "adamw_torch",
    "learning_rate": 1e-2,
    "lr_scheduler_type": "linear",
    "train_sampling_strategy": "random",
    "save_strategy": "steps",
    "save_steps": 1,
}


def prepare(folder: Path, seed: int = 0, **settings: Any) -> Run:
    """A run with dropout; a resumed one starts from another model, whose weights must not count."""
    producer = CountingProducer(make_producer(ROWS, LABELS))
    model = make_classifier(LABELS, dropout=0.3, seed=seed)
    return make_run(folder, model=model, producer=producer, **(SETTINGS | settings))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return prepare(tmp_path_factory.mktemp("whole")).train()


def resume(whole: Run, folder: Path, step: int, **settings: Any) -> Run:
    """Go on from a copy of the checkpoint of `step`, all the rest of the output lost."""
    checkpoint = folder / f"checkpoint-{step}"
    shutil.copytree(Path(str(whole.trainer.args.output_dir)) / checkpoint.name, checkpoint)
    return prepare(folder, seed=9, **settings).train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize(
    ("step", "made"),
    [(1, [1, 2]), (3, [1, 2]), (5, [2]), (6, [2]), (8, [])],
    ids=["first epoch", "first boundary", "second epoch", "second boundary", "last epoch"],
)
def test_a_resumed_run_ends_bit_for_bit_as_the_uninterrupted_one(
    step: int, made: list[int], whole: Run, tmp_path: Path
) -> None:
    run = resume(whole, tmp_path, step)
    assert_moved(weights(whole.initial), weights(whole.model))
    assert_identical(weights(run.model), weights(whole.model))
    assert run.used() == whole.used()
    assert isinstance(run.producer, CountingProducer)
    assert run.producer.asked == made  # what the checkpoint holds is not made again


def test_an_uninterrupted_run_makes_each_refill_once(whole: Run) -> None:
    assert isinstance(whole.producer, CountingProducer)
    assert whole.producer.asked == [0, 1, 2]
    assert sum(count for _, count in whole.used()) == 3 * ROWS


def test_workers_may_differ_on_resume(whole: Run, tmp_path: Path) -> None:
    run = resume(whole, tmp_path, 4, dataloader_num_workers=1)
    assert run.used() == whole.used()
    assert run.batches.mixed_texts() == whole.batches.mixed_texts()[4 * 4 :]


def test_accumulation_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = {"gradient_accumulation_steps": 2}
    whole = prepare(tmp_path / "whole", **settings).train()
    run = resume(whole, tmp_path / "resumed", 3, **settings)
    assert_identical(weights(run.model), weights(whole.model))
    assert run.used() == whole.used()


def test_smoothing_and_the_explicit_route_resume_bit_for_bit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "label_smoothing_factor": 0.1,
        "collator": {"label_format": "labels"},
        "trainer": {"compute_loss_func": soft_cross_entropy},
    }
    whole = prepare(tmp_path / "whole", **settings).train()
    run = resume(whole, tmp_path / "resumed", 4, **settings)
    assert_identical(weights(run.model), weights(whole.model))
    assert run.used() == whole.used()


def test_a_checkpoint_holds_the_rows_that_were_drawn_so_far(whole: Run) -> None:
    folder = Path(str(whole.trainer.args.output_dir)) / "checkpoint-5" / "mixup_hf"
    assert sorted(path.name for path in folder.glob("refill-*")) == ["refill-00000", "refill-00001"]
    state = json.loads((folder / "state.json").read_text())
    assert sum(count for _, _, count in state["used"]) == 5 * 4


def test_checkpoints_share_the_rows_on_disk(whole: Run) -> None:
    """Each used to hold its own copy of all refills."""
    output = Path(str(whole.trainer.args.output_dir))
    first = "mixup_hf/refill-00000/00000000-00000004/rows.arrow"
    files = [output / f"checkpoint-{step}" / first for step in (4, 9)]
    assert files[0].stat().st_ino == files[1].stat().st_ino


def test_resuming_with_other_settings_is_an_error_that_names_them(tmp_path: Path) -> None:
    first = prepare(tmp_path, callback={"settings": {"seed": 0, "pairing": "random"}})
    first.train()
    other = prepare(tmp_path, callback={"settings": {"seed": 1, "pairing": "random"}})
    with pytest.raises(ValueError, match=r"other mixup settings.*\(\['seed'\]\)"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_the_settings_of_the_front_door_are_compared_on_resume(
    tmp_path: Path, tiny_inverter: Inverter
) -> None:
    """A run is resumed with what it was made with, and refused otherwise."""
    texts, labels = make_rows(ROWS, LABELS)

    def front_door(pairing: str) -> Run:
        config = MixupConfig(max_new_tokens=4, pairing=pairing)
        mixup = InversedMixup(tiny_inverter, texts, labels, config=config)
        kwargs = mixup.trainer_kwargs(word_tokenizer(classifier=True))
        return make_run(tmp_path, **SETTINGS, trainer=kwargs)

    front_door("random").train()
    again = front_door("random").train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert again.trainer.state.global_step == 9
    with pytest.raises(ValueError, match=r"other mixup settings.*\(\['pairing'\]\)"):
        front_door("cross_class").train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_resuming_a_run_that_had_no_plugin_warns_and_trains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = {key: value for key, value in SETTINGS.items() if key != "rows"}
    tokenizer = word_tokenizer(classifier=True)
    Trainer(
        model=make_classifier(LABELS),
        args=make_arguments(tmp_path, **arguments),
        train_dataset=make_dataset(*make_rows(ROWS, LABELS)),
        data_collator=DataCollatorWithPadding(tokenizer),
    ).train()
    run = prepare(tmp_path)
    with caplog.at_level(logging.WARNING, logger="mixup_hf"):
        run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert "Resumed at step 4" in caplog.text
    assert run.trainer.state.global_step == 9
    assert sum(count for _, count in run.used()) == 5 * 4
    assert isinstance(run.producer, CountingProducer)
    assert run.producer.asked == [1, 2]


def test_a_fresh_start_forgets_the_pool_of_an_older_run(tmp_path: Path) -> None:
    """Else rows of other settings would be trained on."""
    prepare(tmp_path).train()
    again = prepare(tmp_path)
    again.callback.producer = CountingProducer(make_producer(ROWS, LABELS, seed=7))
    again.train()
    assert again.callback.producer.asked == [0, 1, 2]
    assert {row.seed for row, _ in again.callback.used_rows()} == {7}


def test_the_last_checkpoint_may_be_resumed_and_trains_no_further(
    whole: Run, tmp_path: Path
) -> None:
    run = resume(whole, tmp_path, 9)
    assert run.trainer.state.global_step == 9
    assert run.used() == whole.used()
    assert_identical(weights(run.model), weights(whole.model))


def test_a_run_is_not_resumed_with_other_rows(tmp_path: Path, tiny_inverter: Inverter) -> None:
    """Parents and labels of its sentences are positions in the training set of then."""
    texts, labels = make_rows(ROWS, LABELS)

    def front_door(texts: list[str], labels: list[int]) -> Run:
        config = MixupConfig(max_new_tokens=4)
        mixup = InversedMixup(tiny_inverter, texts, labels, config=config)
        kwargs = mixup.trainer_kwargs(word_tokenizer(classifier=True), check_rows=False)
        return make_run(tmp_path, **SETTINGS, trainer=kwargs)

    front_door(texts, labels).train()
    for others in ((texts[::-1], labels), (texts, [*labels[1:], labels[0]])):
        with pytest.raises(ValueError, match=r"training rows or aligner \(\['training_rows'\]\)"):
            front_door(*others).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_the_state_is_written_when_all_that_it_names_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two used to leave a checkpoint whose used rows could not be read."""
    run = prepare(tmp_path, save_strategy="no").train()
    pool = run.callback.pool
    (tmp_path / "checkpoint-9").mkdir()
    folder = tmp_path / "checkpoint-9" / "mixup_hf"

    def killed(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpointing, "_link_tree", killed)
    saved = checkpointing.Saved({}, Counter({(0, 0): 1}), 0, 0)
    with pytest.raises(KeyboardInterrupt):
        checkpointing.write_checkpoint(folder, saved, pool)
    assert checkpointing.Saved.read(folder) is None


def test_a_search_for_hyperparameters_leaves_no_checkpoint_without_a_model(tmp_path: Path) -> None:
    """It saves in a folder of its own for each trial."""
    run = prepare(tmp_path, save_strategy="no").train()
    folder = tmp_path / "checkpoint-9" / "mixup_hf"
    pool = run.callback.pool
    checkpointing.write_checkpoint(folder, checkpointing.Saved({}, Counter(), 0, 0), pool)
    assert not folder.parent.exists()
