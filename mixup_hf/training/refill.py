"""When generated rows are made: as many as the loader may ask for next, chunk by chunk."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from tqdm.auto import tqdm

from mixup_hf import errors, runtime
from mixup_hf.generation.background import BackgroundProducer, Chunk
from mixup_hf.generation.generator import Producer
from mixup_hf.judging import intrusion_report
from mixup_hf.training.pool import NEVER, MixupPool
from mixup_hf.training.schedule import Schedule
from mixup_hf.types import Follows, MixedExample, Supplies

_WORTH_A_LINE = 2.0  # seconds
Rows = list[MixedExample]
OnChunk = Callable[[int], object]


class _Source(Protocol):
    """Rows of a refill in pieces; a piece is what is decoded, gathered and published at once."""

    def size(self, refill: int, wanted: int) -> int:
        """Rows that a refill has when `wanted` are asked for."""
        ...

    def piece(self, position: int, needed: int, size: int) -> range:
        """Chunks of the next piece, which begins at `position`; rows up to `needed` are used."""
        ...

    def make(self, refill: int, chunks: range, size: int, on_chunk: OnChunk) -> Rows:
        """The rows of a piece, on every process."""
        ...


class Refiller:
    """Keeps the pool ahead of the loader.

    Args:
        producer: Makes the rows, or has them.
        pool: Where they go.
        schedule: Which rows each batch draws.
        rows_per_refill: Rows of a refill. Default: what its epochs use.
        follower: Keeps the producer's inverter in step with the model. The rows of a refill are
            then made all at once, because the model moves while it trains.
        background: Decodes chunks in a thread; None: in line.
        may_fail: Go on with real rows when rows cannot be made.

    Attributes:
        seconds: How long training has waited for rows.
    """

    def __init__(
        self,
        producer: Supplies,
        pool: MixupPool,
        schedule: Schedule,
        *,
        rows_per_refill: int | None = None,
        follower: Follows | None = None,
        background: BackgroundProducer | None = None,
        may_fail: bool = False,
    ) -> None:
        self.pool = pool
        self.schedule = schedule
        self.rows_per_refill = rows_per_refill
        self.follower = follower
        self.background = background
        self.may_fail = may_fail
        self.seconds = 0.0
        self._producer = producer
        self._source: _Source = (
            _Decoded(producer, background) if isinstance(producer, Producer) else _AtHand(producer)
        )
        self._announced = False

    def begin_epoch(self, epoch: int, first_batch: int, model: Any) -> None:
        """Draw from the refill of this epoch, which may be a new one."""
        refill = self.schedule.refill(epoch)
        if self.background is not None:
            self.background.pause()  # the loader's workers are forked after this
        is_new = refill != self.pool.refill
        if is_new:
            self.report()
        # Skipped batches of a stream are collated, and thrown away.
        first = first_batch if self.schedule.sized else 0
        self.pool.begin_epoch(epoch, refill, self._size(refill), first)
        if is_new and not len(self.pool) and self.follower is not None:
            self.follower.follow(model)
            self._producer.forget()

    def top_up(self, batches: int, requested: int, last: int) -> None:
        """Make what the next batches draw.

        Args:
            batches: Number of batches of each process, counted from the beginning of the epoch,
                whose rows have to be there.
            requested: Batches that may have been asked for already; if rows cannot be made, those
                after them stay without.
            last: The batch, counted in the same way, at which the whole run ends.
        """
        now = self.pool.state
        limit = self._limit(now.refill, last)
        needed = min(self.schedule.drawn(now.epoch, min(batches, now.stop_batch)), now.size)
        if self.follower is not None:
            needed = max(needed, limit)
        if needed <= now.published:
            return
        started = time.monotonic()
        try:
            self._make(needed, max(needed, limit), now.size)
        except Exception:  # whatever it is: the user asked to go on
            if not self.may_fail:
                raise
            self.pool.stop(requested)
            runtime.warn(
                f"No sentences could be made for refill {now.refill}: training goes on with real "
                "rows, because `on_failure` is 'real_rows'. The next epoch tries again.\n"
                + traceback.format_exc()
            )
        self.seconds += time.monotonic() - started
        self._announce(last)

    def work_ahead(self, last: int) -> None:
        """Let the background decode the rest of this refill, and the next one."""
        if self.background is None:
            return
        now, chunks = self.pool.state, list[Chunk]()
        if now.stop_batch == NEVER:  # else this refill has failed, and waits for the next epoch
            chunks += self._chunks(now.refill, now.published, self._limit(now.refill, last))
        if self.schedule.refill_every:
            following = now.refill + 1
            chunks += self._chunks(following, 0, self._limit(following, last))
        self.background.start(chunks)

    def report(self) -> None:
        """Log what the judges found in the refill that is being left."""
        if self.pool.refill < 0 or not runtime.is_main_process():
            return
        rows = self.pool.rows()
        report = intrusion_report(list(rows))
        if report.overall.count == 0:
            return
        events = ", ".join(
            f"{name} {rate.count}" for name, rate in report.by_event.items() if rate.count
        )
        done = ", ".join(f"{name} {count}" for name, count in sorted(report.mitigations.items()))
        runtime.log(
            f"{report.overall.count} of {len(rows)} generated sentences were doubtful at first "
            f"({events}). Actions: {done}"
        )

    def _size(self, refill: int) -> int:
        wanted = self.rows_per_refill or self.schedule.size(refill, len(self._producer.texts))
        return self._source.size(refill, wanted)

    def _limit(self, refill: int, last: int) -> int:
        """Rows of a refill that the run uses before it ends."""
        drawn = self.schedule.drawn_by_end(refill, self.pool.state.epoch, last)
        return min(drawn, self._size(refill))

    def _make(self, needed: int, limit: int, size: int) -> None:
        refill = self.pool.refill
        total = needed - len(self.pool)
        silent = not runtime.is_main_process()
        with tqdm(
            total=total, desc="generating sentences", delay=1, leave=False, disable=silent
        ) as bar:
            while (position := len(self.pool)) < needed:
                chunks = self._source.piece(position, limit, size)
                self.pool.append(self._source.make(refill, chunks, size, bar.update))

    def _announce(self, last: int) -> None:
        """Print once what the run will take, as soon as a chunk was timed without the start-up."""
        producer = self._producer
        if self._announced or not isinstance(producer, Producer) or producer.chunks_made < 2:
            return
        self._announced = True
        now = self.pool.state
        rows, refill = 0, now.refill
        while (more := self._limit(refill, last)) > 0:
            rows += more
            refill += 1
            if not self.schedule.refill_every:
                break
        rows -= now.published
        seconds = rows * producer.seconds_per_row / runtime.world_size()
        if seconds < _WORTH_A_LINE:
            return
        runtime.announce(
            f"mixup_hf: about {rows:,} more sentences will be generated while this run trains, in "
            f"about {_duration(seconds)} at {1 / producer.seconds_per_row:.1f} sentences per second"
        )

    def _chunks(self, refill: int, position: int, limit: int) -> list[Chunk]:
        assert isinstance(self._producer, Producer)
        if position >= limit:
            return []
        plan, size = self._producer.plan, self._size(refill)
        chunks = range(plan.chunk_of(position), plan.chunk_of(limit - 1) + 1)
        return [Chunk(refill, number, size) for number in self._producer.share(chunks)]


class _Decoded:
    """Rows of a `Producer`: every process decodes one chunk of a piece."""

    def __init__(self, producer: Producer, background: BackgroundProducer | None) -> None:
        self.producer = producer
        self.background = background

    def size(self, refill: int, wanted: int) -> int:
        return wanted

    def piece(self, position: int, needed: int, size: int) -> range:
        first = self.producer.plan.chunk_of(position)
        last = self.producer.plan.chunk_of(min(needed, size) - 1)
        return range(first, min(first + runtime.world_size(), last + 1))

    def make(self, refill: int, chunks: range, size: int, on_chunk: OnChunk) -> Rows:
        if self.background is None:
            return self.producer.make(refill, chunks, size, on_chunk)
        mine: dict[int, Rows] = {}
        for number in self.producer.share(chunks):
            mine[number] = self.background.take(Chunk(refill, number, size))
            on_chunk(len(mine[number]))
        return self.producer.gather(mine)


class _AtHand:
    """Rows that were made before: one piece per refill."""

    def __init__(self, producer: Supplies) -> None:
        self.producer = producer
        self._rows: tuple[int, Rows] = (-1, [])

    def size(self, refill: int, wanted: int) -> int:
        if self._rows[0] != refill:
            self._rows = (refill, self.producer.produce(refill, wanted) if wanted else [])
        return len(self._rows[1])

    def piece(self, position: int, needed: int, size: int) -> range:
        return range(1)

    def make(self, refill: int, chunks: range, size: int, on_chunk: OnChunk) -> Rows:
        on_chunk(size)
        return self._rows[1]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def background_of(producer: Supplies) -> BackgroundProducer:
    """A thread for `producer`, which has to be one that decodes."""
    if not isinstance(producer, Producer):
        raise errors.bad("background", "be false where rows are read from a file", True)
    return BackgroundProducer(producer)
