"""What all campaigns share: trials drawn from a seed, counted, and their faults kept.

A trial gets a random generator of its own and an empty folder. It is repeated exactly by its seed,
its kind and its number, which every report of a fault states.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # tiny random models

HANG = 300  # seconds after which a trial counts as hung; a busy machine imports slowly
MEMORY = 6 * 2**30  # bytes of address space beyond which a trial fails instead of the machine
Trial = Callable[[random.Random, Path], str]


class Fault(AssertionError):
    """Something that must not happen has happened."""


class Hang(BaseException):
    """A trial takes too long; no `except Exception` may swallow it."""


@dataclass
class Tally:
    """What a campaign has found.

    Attributes:
        seed: Its seed.
        trials: How many trials of each kind ran.
        outcomes: How they ended, in the words of the trials: "refused", "accepted", ...
        faults: What must not happen: kind, number of the trial, traceback.
        seconds: What it took.
    """

    seed: int
    trials: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[str, int, str]] = field(default_factory=list)
    seconds: float = 0.0

    def report(self) -> str:
        """The counts as lines, and every kind of fault once."""
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(self.trials.items()))
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        lines = [
            f"seed {self.seed}: {self.trials.total()} trials in {self.seconds:.0f} s",
            f"  kinds: {kinds}",
            f"  ended: {ends}",
            f"  faults: {len(self.faults)}",
        ]
        seen: Counter[str] = Counter()
        for kind, number, trace in self.faults:
            last = trace.strip().splitlines()[-1]
            seen[f"{kind}: {last[:160]}"] += 1
            if seen[f"{kind}: {last[:160]}"] == 1:
                lines.append(f"--- {kind}, trial {number} of seed {self.seed}\n{trace}")
        return "\n".join(lines)


def campaign(
    kinds: Mapping[str, Trial],
    *,
    seed: int,
    count: int | None = None,
    minutes: float | None = None,
    only: str | None = None,
    number: int | None = None,
    hang: int = HANG,
) -> Tally:
    """Run trials of all kinds in turn, until there are `count` of them or the time is over.

    Args:
        kinds: The trials by name.
        seed: Decides on everything random.
        count: How many trials.
        minutes: How long.
        only: Run this kind alone, or those whose names begin so.
        number: Run this trial alone, to repeat a fault.
        hang: Seconds after which a trial counts as hung.
    """
    chosen = _chosen(kinds, only)
    tally, started, at = Tally(seed), time.monotonic(), number or 0
    while True:
        done = tally.trials.total()
        late = minutes is not None and time.monotonic() - started > 60 * minutes
        if late or (count is not None and done >= count) or (number is not None and done):
            break
        name = list(chosen)[at % len(chosen)] if number is None else (only or list(kinds)[0])
        tally.trials[name] += 1
        trace = _one(chosen[name], f"{seed}/{name}/{at}", tally.outcomes, hang)
        if trace is not None:
            tally.faults.append((name, at, trace))
        at += 1
    tally.seconds = time.monotonic() - started
    return tally


def _chosen(kinds: Mapping[str, Trial], only: str | None) -> Mapping[str, Trial]:
    if only is None or only in kinds:
        return kinds if only is None else {only: kinds[only]}
    found = {name: trial for name, trial in kinds.items() if name.startswith(only)}
    if not found:
        raise SystemExit(f"--only must be one of these, or the beginning of some: {list(kinds)}")
    return found


def _one(trial: Trial, key: str, outcomes: Counter[str], hang: int) -> str | None:
    """Run one trial; the traceback if it failed."""
    folder = Path(tempfile.mkdtemp(prefix="trial-"))
    try:
        with no_hang(hang):
            outcomes[trial(random.Random(key), folder)] += 1
        return None
    except (Exception, Hang):
        outcomes["failed"] += 1
        return traceback.format_exc(limit=-8)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def no_hang(seconds: int = HANG) -> Iterator[None]:
    """Raise `Hang` in the main thread when the block takes longer."""

    def ring(*_: object) -> None:
        raise Hang(f"not done after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def limit_memory(size: int = MEMORY) -> None:
    """Let allocations beyond `size` bytes of this process fail, and not the machine."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))


def outcome(work: Callable[[], Any]) -> tuple[str, Any]:
    """("accepted", result), or ("refused", message) for an error that tells what to change.

    Raises:
        Fault: The message says nothing.
        Exception: Anything that is no error of the package's own kinds.
    """
    from mixup_hf.errors import MixupError

    try:
        return "accepted", work()
    except MixupError as error:
        message = str(error)
        if len(message) < 20:
            raise Fault(f"an error without a reason: {message!r}") from error
        return "refused", message


def refused(work: Callable[[], Any], *words: str) -> str:
    """Require that `work` is refused with a reason that names one of `words`.

    Raises:
        Fault: It is accepted, or refused for another reason.
    """
    end, found = outcome(work)
    if end != "refused":
        raise Fault(f"accepted, but must be refused: {found!r:.200}")
    if words and not any(word in found for word in words):
        raise Fault(f"refused without any of {words}: {found}")
    return "refused"


@contextmanager
def unchanged(*folders: Path) -> Iterator[None]:
    """Require that no file below the folders is made, changed or removed."""
    before = [_digests(folder) for folder in folders]
    yield
    for folder, was in zip(folders, before, strict=True):
        now = _digests(folder)
        if now != was:
            different = sorted(name for name in {*was, *now} if was.get(name) != now.get(name))
            raise Fault(f"changed outside of the target: {folder}: {different[:5]}")


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.is_symlink() or not path.is_file():
                found[str(path)] = os.readlink(path) if path.is_symlink() else "special"
            else:
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
