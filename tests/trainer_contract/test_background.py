"""Sentences made in the background, and what happens when they cannot be made."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import make_producer
from trainer_runs import LABELS, Run, assert_identical, make_run, weights

from mixup_hf import MixupConfig
from mixup_hf.generation.background import BackgroundProducer, Chunk
from mixup_hf.generation.generator import Producer
from mixup_hf.types import MixedExample

CHUNKS = [Chunk(3, 0, 12), Chunk(3, 1, 12), Chunk(3, 2, 12)]
SETTINGS: dict[str, Any] = {"rows": 12, "num_train_epochs": 4}


def prepare(folder: Path, producer: Producer | None = None, **callback: Any) -> Run:
    producer = producer or make_producer(12, LABELS)
    return make_run(folder, producer=producer, callback=callback, **SETTINGS)


@pytest.mark.parametrize("refill_every", [0, 1, 2])
def test_background_and_inline_are_the_same_run(tmp_path: Path, refill_every: int) -> None:
    inline = prepare(tmp_path / "inline", refill_every=refill_every).train()
    ahead = prepare(tmp_path / "ahead", refill_every=refill_every, background=True).train()
    assert_identical(weights(ahead.model), weights(inline.model))
    assert ahead.used() == inline.used()


class WatchedProducer(Producer):
    """Notes in which thread each chunk is made; fails where it is told to."""

    def __init__(self, producer: Producer, fails_at: tuple[int, ...] = (), wait: float = 0) -> None:
        self.__dict__.update(producer.__dict__)
        self.made: list[tuple[int, str]] = []
        self.fails_at, self.wait = fails_at, wait

    def chunk(self, epoch: int, chunk: int, num_rows: int) -> list[MixedExample]:
        time.sleep(self.wait)
        self.made.append((epoch, threading.current_thread().name))
        if epoch in self.fails_at:
            raise OSError("the server is gone")
        return super().chunk(epoch, chunk, num_rows)


def watched(**settings: Any) -> WatchedProducer:
    return WatchedProducer(make_producer(12, LABELS), **settings)


def test_only_the_first_refill_is_made_in_line_and_none_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = BackgroundProducer.pause

    def pause_when_done(self: BackgroundProducer) -> None:
        """As on a machine where an epoch takes longer than its sentences."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._thread is None)
        pause(self)

    monkeypatch.setattr(BackgroundProducer, "pause", pause_when_done)
    producer = watched()
    prepare(tmp_path, producer, background=True).train()
    threads = {epoch: {name for at, name in producer.made if at == epoch} for epoch in range(5)}
    assert threads[0] == {"MainThread"}
    assert threads[1] == threads[2] == threads[3] == {"mixup_hf-background"}
    assert threads[4] == set()  # there is no fifth epoch


@pytest.mark.parametrize("background", [False, True])
def test_a_failure_stops_training_with_its_own_traceback(tmp_path: Path, background: bool) -> None:
    run = prepare(tmp_path, watched(fails_at=(1,)), background=background)
    with pytest.raises(OSError, match="the server is gone") as error:
        run.train()
    assert "chunk" in [entry.name for entry in error.traceback]
    assert run.trainer.state.global_step == 3


@pytest.mark.parametrize("background", [False, True])
def test_on_wish_training_goes_on_with_real_rows_and_says_so(
    tmp_path: Path, background: bool, caplog: pytest.LogCaptureFixture
) -> None:
    run = prepare(
        tmp_path, watched(fails_at=(1,)), background=background, on_failure="real_rows"
    ).train()
    mixed = [int((batch["mixup_rows"] >= 0).sum()) for batch in run.batches.training]
    assert mixed == [4] * 3 + [0] * 3 + [4] * 6
    assert "the server is gone" in caplog.text
    assert "training goes on with real rows" in caplog.text


def test_a_run_that_ends_early_leaves_no_thread_behind(tmp_path: Path) -> None:
    run = prepare(tmp_path, watched(wait=0.05), background=True)
    run.trainer.args.max_steps = 2
    run.train()
    assert not [each for each in threading.enumerate() if each.name == "mixup_hf-background"]


def test_chunks_that_were_not_asked_for_are_decoded_in_line() -> None:
    expected = {each: make_producer(12, LABELS).chunk(*each) for each in CHUNKS}
    background = BackgroundProducer(make_producer(12, LABELS))
    background.start(CHUNKS[:2])
    assert background.take(CHUNKS[2]) == expected[CHUNKS[2]]
    background.start(CHUNKS)
    assert [background.take(each) for each in CHUNKS] == [expected[each] for each in CHUNKS]


def test_what_was_decoded_before_a_pause_is_kept() -> None:
    producer = watched()
    background = BackgroundProducer(producer)
    background.start(CHUNKS)
    while not producer.made:
        time.sleep(0.001)
    background.pause()
    made = len(producer.made)
    background.start(CHUNKS)
    for each in CHUNKS:
        background.take(each)
    assert 0 < made <= len(producer.made) == len(CHUNKS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_failure": "ignore"}, "`on_failure` must be one of"),
        ({"background": True, "source": "task"}, "`background` is incompatible with `source`"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixupConfig(**settings)


def test_what_is_fitted_is_fitted_in_training_s_own_thread(tmp_path: Path) -> None:
    """It sets the random state that dropout draws from, so a thread would disturb both."""
    producer, threads = make_producer(12, LABELS), []

    class Asked:
        def fit(self) -> None:
            threads.append(threading.current_thread())

        def apply(self, rows: Any) -> Any:
            return rows

    producer.labelling = Asked()  # type: ignore[assignment]
    producer.gate = lambda: threads.append(threading.current_thread())  # type: ignore[assignment]
    background = BackgroundProducer(producer)
    background.start(CHUNKS)
    assert threads[:2] == [threading.main_thread()] * 2
    background.stop()
