"""Sentences decoded in a thread while the model trains on earlier ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

import torch

from mixup_hf import runtime
from mixup_hf.generation.generator import Producer
from mixup_hf.types import MixedExample

Rows = list[MixedExample]
_THREAD = "mixup_hf-background"


class Chunk(NamedTuple):
    """One chunk of a refill of `num_rows` rows."""

    refill: int
    number: int
    num_rows: int


class BackgroundProducer:
    """Decodes this process's chunks in a thread, in the order they are asked for.

    The rows are those that would have been made in line, because a chunk depends on its number
    alone. Processes exchange rows only where they are taken, on the main thread.

    Args:
        producer: Makes the rows; nothing else may use it while the thread runs.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._waiting: list[Chunk] = []
        self._done: dict[Chunk, Rows] = {}
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._paused = True
        self._thread: threading.Thread | None = None

    def start(self, chunks: Iterable[Chunk]) -> None:
        """Decode these chunks, after those that are still to be decoded."""
        with self._changed:
            known = {*self._waiting, *self._done}
            self._waiting += [chunk for chunk in chunks if chunk not in known]
            if self._thread is not None or not self._waiting or self._error is not None:
                return
            try:  # here, while training waits: fitting sets the random state that it draws from
                _fit(self._producer)
            except Exception as error:  # raised where the rows are taken, as those of the thread
                self._error = error
                return
            self._paused = False
            # A daemon: a Trainer that dies must not be kept alive by its sentences.
            self._thread = threading.Thread(
                target=self._work, args=[runtime.current_gpu()], name=_THREAD, daemon=True
            )
            self._thread.start()

    def take(self, chunk: Chunk) -> Rows:
        """The rows of a chunk; waits for it, or decodes it here if the thread was not asked to.

        Raises:
            Exception: What went wrong in the thread, with its traceback.
        """
        rows = self._wait_for(chunk)
        if rows is None and self._error is not None:
            error = self._error
            self.stop()
            raise error
        if rows is None:
            self.pause()  # a producer has one user at a time
            rows = self._done.pop(chunk, None) or self._producer.chunk(*chunk)
            self._waiting = [each for each in self._waiting if each != chunk]
        return rows

    def _wait_for(self, chunk: Chunk) -> Rows | None:
        """The rows if the thread has made them or is about to; None if it will not."""
        started = time.monotonic()
        with self._changed:
            while chunk in self._waiting and self._thread is not None:
                self._changed.wait()
            rows = self._done.pop(chunk, None)
        waited = time.monotonic() - started
        if waited > 1:
            runtime.log(f"training waited {waited:.1f} s for sentences decoded in the background")
        return rows

    def pause(self) -> None:
        """Return once the thread has ended, after the chunk it is decoding; rows are kept."""
        with self._changed:
            self._paused = True
            thread = self._thread
        if thread is not None:
            thread.join()

    def stop(self) -> None:
        """Give up everything that has not been taken."""
        self.pause()
        self._waiting, self._done, self._error = [], {}, None

    def _work(self, gpu: torch.device | None) -> None:
        try:
            while True:
                with self._changed:
                    if self._paused or not self._waiting:
                        return
                    chunk = self._waiting[0]
                with runtime.on_device(gpu):
                    rows = self._producer.chunk(*chunk)
                with self._changed:
                    self._done[chunk] = rows
                    self._waiting.remove(chunk)
                    self._changed.notify_all()
        except BaseException as error:  # raised again where the rows are taken
            self._error = error
        finally:
            with self._changed:
                self._thread = None
                self._changed.notify_all()


def _fit(producer: Producer) -> None:
    """Fit the gate and the committee, if there are any and they are not fitted yet."""
    if producer.gate is not None:
        producer.gate()
    if producer.labelling is not None:
        producer.labelling.fit()
