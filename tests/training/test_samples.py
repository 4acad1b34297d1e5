"""Figures and tables of generated rows in the history and in trackers."""

from __future__ import annotations

import json
import math
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attaching import CLASSES, make_mixup, plain_trainer
from tiny import make_producer
from torch.nn import functional as F
from trainer_runs import LABELS, RATE, expected_rows, make_run

from mixup_hf.data.targets import REGRESSION, SINGLE_LABEL
from mixup_hf.training.pool import MixupPool
from mixup_hf.training.samples import KEY, SampleTables, send_table

NAMES = ["business", "politics", "sport"]
ROW = replace(
    make_producer(12, LABELS).produce(0, 1)[0],
    text="a | b",
    label=(0.25, 0.75, 0.0),
    parents=(0, 1),
    lam=0.25,
    votes={"knn": (0.0, 1.0, 0.0)},
    mitigation="none",
)


def tables(most: int = 2, problem_type: str = SINGLE_LABEL) -> SampleTables:
    return SampleTables(["first", "second"], NAMES, problem_type, most)


def filled(folder: Path, *pieces: int) -> MixupPool:
    pool = MixupPool(folder, 0)
    pool.begin_epoch(0, 0, 100)
    for piece in pieces:
        pool.append([ROW] * piece)
    return pool


def test_a_table_says_where_a_row_is_from_and_who_labelled_it(tmp_path: Path) -> None:
    state = SimpleNamespace(is_world_process_zero=True, log_history=[{}], global_step=1)
    tables().show(filled(tmp_path, 3), [], state)
    shown = state.log_history[-1][KEY]
    assert len(shown) == 2
    assert shown[0] == {
        "text": "a | b",
        "label": "politics 0.75, business 0.25",
        "parents": "'first' + 'second'",
        "lam": 0.25,
        "votes": "knn: politics 1.00",
        "events": "",
        "action": "kept",
        "attempts": ROW.attempts,
    }
    json.dumps(state.log_history)  # as the Trainer saves it


def test_tables_come_with_new_rows_and_ever_more_rarely(tmp_path: Path) -> None:
    pool, samples, seen = filled(tmp_path), tables(most=1), []
    for _ in range(20):
        state = SimpleNamespace(is_world_process_zero=True, log_history=[{}], global_step=1)
        pool.append([ROW])
        samples.show(pool, [], state)
        samples.show(pool, [], state)
        seen.append(KEY in state.log_history[-1])
    assert [at + 1 for at, found in enumerate(seen) if found] == [1, 2, 4, 8, 16]
    pool.begin_epoch(1, 1, 5)
    pool.append([ROW])
    samples.show(pool, [], state := SimpleNamespace(**vars(state) | {"log_history": [{}]}))
    assert KEY in state.log_history[-1]


@pytest.mark.parametrize("most, main", [(0, True), (2, False)])
def test_nothing_is_shown_unasked_or_by_another_process(
    tmp_path: Path, most: int, main: bool
) -> None:
    state = SimpleNamespace(is_world_process_zero=main, log_history=[{}], global_step=1)
    tables(most).show(filled(tmp_path, 3), [], state)
    assert state.log_history == [{}]


def test_the_label_of_a_regression_is_a_number() -> None:
    cells = tables(problem_type=REGRESSION)._cells(replace(ROW, label=(2.5,), votes={}))
    assert cells["label"] == "2.5"


def test_a_tracker_that_fails_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("mixup_hf.training.samples.send_table", fail)
    state = SimpleNamespace(is_world_process_zero=True, log_history=[{}], global_step=1)
    tables().show(filled(tmp_path, 3), [], state)
    assert "no network" in caplog.text and KEY in state.log_history[-1]


def test_losses_of_real_and_generated_rows_are_logged_apart(tmp_path: Path) -> None:
    run = make_run(tmp_path, max_steps=1).train()
    (batch,) = run.batches.training
    rows = expected_rows(run, batch)
    generated = [position >= 0 for position in batch["mixup_rows"].tolist()]
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    logits = run.initial.eval()(**inputs).logits.detach()
    losses = [
        float(F.cross_entropy(line[None], row.target[None]))
        for line, row in zip(logits, rows, strict=True)
    ]
    for key, wanted in (("loss_real", False), ("loss_generated", True)):
        found = [loss for loss, flag in zip(losses, generated, strict=True) if flag is wanted]
        (logged,) = run.logged(f"mixup_hf/{key}")
        assert math.isclose(logged, sum(found) / len(found), rel_tol=1e-4), key


def test_figures_of_the_pool_and_of_the_speed_are_logged(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=8, num_train_epochs=2).train()
    used = run.logged("mixup_hf/pool_use")
    assert used[1] == used[3] == 1.0  # every row of each refill is used by the end of its epoch
    assert all(speed > 0 for speed in run.logged("mixup_hf/sentences_per_second"))
    waited, refills = run.logged("mixup_hf/seconds_waited"), run.logged("mixup_hf/refill_seconds")
    assert refills[0] == waited[0]
    assert math.isclose(refills[-1], waited[-1] - waited[1], abs_tol=0.02)


# With the real packages, where they are installed.


def run_with(folder: Path, tracker: str) -> Any:
    trainer = plain_trainer(
        folder, arguments={"report_to": [tracker], "max_steps": 2, "run_name": "run"}
    )
    make_mixup().attach(trainer)
    trainer.train()
    (table, *_) = [logs[KEY] for logs in trainer.state.log_history if KEY in logs]
    assert len(table) <= 8 and len(CLASSES) == 12 and RATE
    return table


def test_tensorboard_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    table = run_with(tmp_path, "tensorboard")
    (folder,) = {path.parent for path in tmp_path.rglob("events.out*")}
    events = EventAccumulator(str(folder)).Reload()
    assert "train/mixup_hf/loss_generated" in events.Tags()["scalars"]
    (first, *_) = events.Tensors(f"{KEY}/text_summary")
    shown = first.tensor_proto.string_val[0].decode()
    assert shown.startswith("| text | label | parents |")
    assert shown.count("\n") == len(table) + 1


def test_wandb_shows_them_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    try:
        table = run_with(tmp_path / "run", "wandb")
    finally:
        wandb.finish()
    (file, *_) = tmp_path.rglob("samples_*.table.json")
    written = json.loads(file.read_text())
    assert written["columns"] == list(table[0])
    assert written["data"] == [list(row.values()) for row in table]


def test_mlflow_keeps_them_as_an_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    table = run_with(tmp_path / "run", "mlflow")
    (file,) = tmp_path.rglob("samples.json")
    written = json.loads(file.read_text())
    assert written["columns"] == ["step", *table[0]]
    assert [row[1:] for row in written["data"]][: len(table)] == [[*row.values()] for row in table]


def test_trackio_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    monkeypatch.chdir(tmp_path)
    table = run_with(tmp_path / "run", "trackio")
    (file,) = (tmp_path / "trackio").rglob("*.db")
    with sqlite3.connect(file) as stored:
        lines = [json.loads(line) for (line,) in stored.execute("SELECT metrics FROM metrics")]
    (shown, *_) = [line[KEY] for line in lines if KEY in line]
    assert shown["_value"] == table


def test_other_callbacks_get_nothing() -> None:
    class TensorBoardCallback:
        """Of a script, not of transformers: it has no writer."""

    send_table([TensorBoardCallback(), object()], [{"text": "a"}], 1)
