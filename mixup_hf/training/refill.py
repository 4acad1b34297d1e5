"""When generated rows are made: as many as the loader may ask for next, chunk by chunk."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from mixup_hf import runtime
from mixup_hf.generation.background import BackgroundProducer, Chunk
from mixup_hf.generation.generator import Producer
from mixup_hf.judging.report import events_line
from mixup_hf.training.pool import NEVER, MixupPool
from mixup_hf.training.row_pieces import generating_bar, pieces_of
from mixup_hf.training.schedule import Lookahead, Schedule
from mixup_hf.types import Follows, MixedExample, Supplies

_WORTH_A_LINE = 2.0  # seconds
Rows = list[MixedExample]
OnChunk = Callable[[int], object]


class Refiller:
    """Keeps the pool ahead of the loader.

    Args:
        producer: Makes the rows, or has them.
        pool: Where they go.
        schedule: Which rows each batch draws.
        lookahead: How far ahead of the steps the loader asks for batches.
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
        lookahead: Lookahead,
        *,
        rows_per_refill: int | None = None,
        follower: Follows | None = None,
        background: BackgroundProducer | None = None,
        may_fail: bool = False,
    ) -> None:
        self.pool = pool
        self.schedule = schedule
        self.lookahead = lookahead
        self._steps = 0  # optimizer steps done in this epoch
        self.rows_per_refill = rows_per_refill
        self.follower = follower
        self.background = background
        self.may_fail = may_fail
        self.seconds = 0.0
        self._before = 0.0  # of them, before this refill
        self._tally: Counter[str] = Counter()
        self._producer = producer
        self._source = pieces_of(producer, background)
        self._announced = False

    def begin_epoch(
        self, epoch: int, first_batch: int, model: Any, steps_left: int, stop_batch: int = NEVER
    ) -> None:
        """Make the rows of an epoch's first batches, maybe those of a new refill.

        Args:
            epoch: Counted from the first one that mixes.
            first_batch: Where a resume begins.
            model: The model being trained.
            steps_left: Optimizer steps until the run ends.
            stop_batch: From this batch on nothing is mixed.
        """
        refill = self.schedule.refill(epoch)
        if self.background is not None:
            self.background.pause()  # the loader's workers are forked after this
        is_new = refill != self.pool.refill
        if is_new:
            self.report()
            self._before = self.seconds
        # Skipped batches of a stream are collated, and thrown away.
        first = first_batch if self.schedule.sized else 0
        self.pool.begin_epoch(epoch, refill, self._size(refill), first)
        self.pool.stop(stop_batch)
        self._steps = first_batch // self.lookahead.accumulation
        if stop_batch and is_new and self.follower is not None and self._is_used(steps_left):
            self.follower.follow(model)
            self._producer.forget()
        self._top_up(first_batch, steps_left)

    def end_step(self, steps_left: int) -> None:
        """Make the rows that the next step's batches may draw, and let the background go on."""
        self._steps += 1
        if steps_left and self.pool.refill >= 0:
            self._top_up(self.requested, steps_left)
            self._work_ahead(steps_left)

    @property
    def requested(self) -> int:
        """Batches of this epoch that the loader may have been asked for by now."""
        return self.lookahead.requested(self._steps)

    def stop(self) -> None:
        """Mix nothing more; batches that were asked for are mixed already, or being mixed."""
        self.pool.stop(self.requested)

    def _top_up(self, requested: int, steps_left: int) -> None:
        """Make what the next step draws; `requested` batches can no longer be changed."""
        last = self.lookahead.taken(self._steps + steps_left)
        batches = self.lookahead.requested(self._steps + 1)
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

    def _work_ahead(self, steps_left: int) -> None:
        """Let the background decode the rest of this refill, and the next one."""
        if self.background is None:
            return
        last = self.lookahead.taken(self._steps + steps_left)
        now, chunks = self.pool.state, list[Chunk]()
        if now.stop_batch == NEVER:  # else this refill has failed, and waits for the next epoch
            chunks += self._chunks(now.refill, now.published, self._limit(now.refill, last))
        if self.schedule.refill_every:
            following = now.refill + 1
            chunks += self._chunks(following, 0, self._limit(following, last))
        self.background.start(chunks)

    def figures(self) -> dict[str, float]:
        """What trackers show: of all rows made in this run so far, and of this refill.

        `sentences_per_second` is the speed of the latest chunk in this process.
        """
        rows = self._tally["rows"]
        found: dict[str, float] = {
            "mixup_hf/rows_made": rows,
            "mixup_hf/seconds_waited": round(self.seconds, 2),
            "mixup_hf/refill_seconds": round(self.seconds - self._before, 2),
        }
        producer = self._producer
        if isinstance(producer, Producer) and producer.chunks_made and producer.seconds_per_row:
            found["mixup_hf/sentences_per_second"] = 1 / producer.seconds_per_row
        if rows:
            found["mixup_hf/doubtful_rate"] = self._tally["doubtful"] / rows
            found["mixup_hf/redraws_per_row"] = self._tally["redraws"] / rows
            found["mixup_hf/copied_rate"] = self._tally["copies"] / rows
        return found

    def report(self) -> None:
        """Log what the judges found in the refill that is being left; copies are printed."""
        if self.pool.refill < 0 or not runtime.is_main_process():
            return
        rows = self.pool.rows()
        line = events_line(rows, self._producer.texts)
        if line is not None:
            copied = any(row.is_copy for row in rows)
            (runtime.announce if copied else runtime.log)(line)

    def _size(self, refill: int) -> int:
        wanted = self.rows_per_refill or self.schedule.size(refill, len(self._producer.texts))
        by_curriculum = self.schedule.course is not None and self.rows_per_refill is None
        before = self.schedule.drawn_before(refill) if by_curriculum else None
        return self._source.size(refill, wanted, before)

    def _limit(self, refill: int, last: int) -> int:
        """Rows of a refill that the run uses before it ends."""
        drawn = self.schedule.drawn_by_end(refill, self.pool.state.epoch, last)
        return min(drawn, self._size(refill))

    def _is_used(self, steps_left: int) -> bool:
        """Whether this refill is still to be made: a curriculum may leave out all its rows."""
        last = self.lookahead.taken(self._steps + steps_left)
        return not len(self.pool) and self._limit(self.pool.refill, last) > 0

    def _make(self, needed: int, limit: int, size: int) -> None:
        refill = self.pool.refill
        total = self._source.stop(needed, size) - len(self.pool)
        with generating_bar(total) as bar:
            while (position := len(self.pool)) < needed:
                chunks = self._source.piece(position, limit, size)
                rows = self._source.make(refill, chunks, size, bar.update)
                self.pool.append(rows)
                self._tally.update(
                    rows=len(rows),
                    doubtful=sum(bool(row.events) for row in rows),
                    redraws=sum(row.attempts - 1 for row in rows),
                    copies=sum(row.is_copy for row in rows),
                )

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
        speed = 1 / producer.seconds_per_row
        runtime.announce(
            f"mixup_hf: about {rows:,} more sentences will be generated while this run trains, in "
            f"about {_duration(seconds)} at {speed:.1f} sentences per second; this process uses "
            f"{runtime.memory_in_use()}"
        )

    def _chunks(self, refill: int, position: int, limit: int) -> list[Chunk]:
        assert isinstance(self._producer, Producer)
        if position >= limit:
            return []
        plan, size = self._producer.plan, self._size(refill)
        chunks = range(plan.chunk_of(position), plan.chunk_of(limit - 1) + 1)
        return [Chunk(refill, number, size) for number in self._producer.share(chunks)]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
