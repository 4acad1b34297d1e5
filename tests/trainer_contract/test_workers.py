"""Data-loader workers draw what the main process would, and see every refill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainer_runs import Run, assert_identical, make_run, tokens, weights

SETTINGS: dict[str, Any] = {"rows": 12, "num_train_epochs": 2, "collator": {"mix_ratio": 0.5}}


def texts_of_refill(run: Run, refill: int) -> set[tuple[int, ...]]:
    assert run.callback.pool is not None
    made = run.callback.pool.rows(refill)
    assert {row.epoch for row in made} == {refill}
    return {tuple(tokens(row.text)) for row in made}


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("no-workers"), **SETTINGS).train()


@pytest.mark.parametrize(
    "loading",
    [
        {"dataloader_num_workers": 1},
        {"dataloader_num_workers": 2},
        {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
        {
            "dataloader_num_workers": 1,
            "dataloader_persistent_workers": True,
            "dataloader_multiprocessing_context": "spawn",
        },
    ],
    ids=["one", "two", "persistent", "spawned"],
)
def test_any_workers_draw_the_same_rows_and_train_the_same_weights(
    loading: dict[str, Any], in_process: Run, tmp_path: Path
) -> None:
    run = make_run(tmp_path, **SETTINGS, **loading).train()
    assert run.batches.mixed_texts() == in_process.batches.mixed_texts()
    assert_identical(weights(run.model), weights(in_process.model))
    assert run.used() == in_process.used()


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_see_each_epochs_refill(persistent: bool, tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        **SETTINGS,
        dataloader_num_workers=2,
        dataloader_persistent_workers=persistent,
    ).train()
    drawn = run.batches.mixed_texts()
    first, second = set(drawn[:12]), set(drawn[12:])
    assert first <= texts_of_refill(run, 0)
    assert second <= texts_of_refill(run, 1)
    assert not second <= texts_of_refill(run, 0)


@pytest.mark.parametrize(("every", "refills"), [(1, [0, 1, 2]), (2, [0, 0, 1]), (0, [0, 0, 0])])
def test_refill_every_says_after_how_many_epochs_new_rows_are_made(
    every: int, refills: list[int], tmp_path: Path
) -> None:
    settings = SETTINGS | {"num_train_epochs": 3}
    run = make_run(tmp_path, **settings, callback={"refill_every": every}).train()
    drawn = run.batches.mixed_texts()
    for epoch, refill in enumerate(refills):
        assert set(drawn[12 * epoch : 12 * (epoch + 1)]) <= texts_of_refill(run, refill)
    assert run.callback.pool is not None
    assert run.callback.pool.refill == refills[-1]


def test_rows_per_refill_bounds_what_is_made(tmp_path: Path) -> None:
    run = make_run(tmp_path, **SETTINGS, callback={"rows_per_refill": 3}).train()
    for batch in run.batches.training:
        drawn = batch["mixup_rows"][batch["mixup_rows"] >= 0].tolist()
        assert set(drawn) == {0, 1, 2}  # four are needed: all, then again
    assert len(run.used()) == 3 * 2
