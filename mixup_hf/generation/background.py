"""Rows of the next refill made while the model trains on those of this one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mixup_hf import runtime
from mixup_hf.generation.generator import Producer
from mixup_hf.types import MixedExample

Chunks = dict[int, list[MixedExample]]


@dataclass
class _Work:
    """What one thread was asked for, and what came of it."""

    refill: int
    num_rows: int
    stopped: threading.Event = field(default_factory=threading.Event)
    chunks: Chunks = field(default_factory=dict)
    error: BaseException | None = None
    thread: threading.Thread | None = None


class Ahead:
    """Makes this process's share of a refill in a thread, one refill ahead at most.

    The rows are those that would have been made in line: which rows a refill has depends on the
    seed alone. Processes speak to each other only where rows are taken, on the main thread.

    Args:
        producer: Makes the rows; it must not be used from elsewhere meanwhile.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._work: _Work | None = None

    @property
    def busy(self) -> bool:
        """Whether a refill is in the making, or waits to be taken."""
        return self._work is not None

    def start(self, refill: int, num_rows: int) -> None:
        """Begin with the rows of a refill; what was begun before is stopped."""
        self.stop()
        work = _Work(refill, num_rows)
        # A daemon: a Trainer that dies must not be kept alive by its sentences.
        work.thread = threading.Thread(
            target=self._make, args=(work,), name="mixup_hf-ahead", daemon=True
        )
        self._work = work
        work.thread.start()

    def take(
        self, refill: int, num_rows: int, on_chunk: Callable[[int], object] | None = None
    ) -> list[MixedExample]:
        """The rows of a refill of all processes; those that are not there yet are waited for.

        Raises:
            Exception: What went wrong in the thread, with its traceback.
        """
        work = self._work
        if work is None or (work.refill, work.num_rows) != (refill, num_rows):
            self.stop()
            return self._producer.produce(refill, num_rows, on_chunk)
        started = time.monotonic()
        assert work.thread is not None
        work.thread.join()
        self._work = None
        if work.error is not None:
            raise work.error
        waited = time.monotonic() - started
        runtime.log(f"training waited {waited:.1f} s for sentences made in the background")
        return self._producer.gather(work.chunks)

    def stop(self) -> None:
        """Give up what is in the making; returns once the thread is done with its chunk."""
        work, self._work = self._work, None
        if work is not None and work.thread is not None:
            work.stopped.set()
            work.thread.join()

    def _make(self, work: _Work) -> None:
        try:
            for number in self._producer.share(work.num_rows):
                if work.stopped.is_set():
                    return
                work.chunks[number] = self._producer.chunk(work.refill, number, work.num_rows)
        except BaseException as error:  # raised again where the rows are taken
            work.error = error
