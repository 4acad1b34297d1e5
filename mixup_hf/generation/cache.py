"""Decoded sentences kept on disk and found again by what they were decoded from.

One SQLite file in write-ahead mode: several processes may use it at once, and a kill at any moment
loses at most the batch being written. Batches used longest ago go first when it is full.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from time import time_ns
from typing import Any, TypeVar
from zlib import crc32

import numpy as np
from torch import Tensor

from mixup_hf import errors

_LOGGER = logging.getLogger(__name__)
_FILE = "sentences.sqlite"
_TABLE = """
CREATE TABLE IF NOT EXISTS batches (
    key TEXT PRIMARY KEY, texts TEXT NOT NULL, bytes INTEGER NOT NULL, used INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON batches (used);
CREATE INDEX IF NOT EXISTS by_size ON batches (bytes);
"""
_WAIT = 30.0  # seconds for another process to finish writing
_KEPT_FREE = 0.1  # share of the limit that is freed at once, so that not every batch evicts one
_Result = TypeVar("_Result")


class SentenceStore:
    """Batches of sentences by key.

    Args:
        folder: Where the database is; created when it is first used.
        identity: What every key depends on: aligner, quantization, decode settings.
        megabytes: Size limit; the batches used longest ago are deleted beyond it.
        holds: What it holds, in messages.

    Raises:
        InvalidInput: `megabytes` is not positive.
    """

    def __init__(
        self,
        folder: str | Path,
        identity: Mapping[str, Any],
        megabytes: float = 256,
        *,
        holds: str = "decoded sentences",
    ) -> None:
        errors.positive("cache_megabytes", megabytes)
        self.folder, self.holds = Path(folder), holds
        self.identity = dict(identity)
        self.limit = int(megabytes * 1_000_000)
        self._connection: sqlite3.Connection | None = None
        self._process = os.getpid()
        self._usable = True
        self._lock = RLock()  # a background thread may decode while the main thread reads

    def key(self, **request: Any) -> str:
        """The key of a batch: SHA-256 of the identity and of what is requested."""
        content = json.dumps([self.identity, request], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def get(self, key: str) -> list[str] | None:
        """The batch stored under this key by this or an earlier run; None if there is none."""
        return self._attempt(lambda database: _get(database, key))

    def put(self, key: str, texts: Sequence[str]) -> None:
        """Store a batch. If that is impossible, warn once and go on without the cache."""
        self._attempt(lambda database: _put(database, key, texts, self.limit))

    def close(self) -> None:
        """Close the database; it is opened again when needed."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def __str__(self) -> str:
        return str(self.folder)

    def _attempt(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result | None:
        """Run `work` on the database; on a damaged one, once more on a fresh one."""
        with self._lock:
            for again in (True, False):
                if not self._usable:
                    return None
                try:
                    with (database := self._open()):
                        return work(database)
                except (sqlite3.Error, OSError, ValueError) as error:
                    self._recover(error, again)
        return None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._process != os.getpid():
            self._connection = None  # a connection must not cross a fork
        if self._connection is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            # The lock above guards the connection, so that threads can share it.
            database = sqlite3.connect(self.folder / _FILE, timeout=_WAIT, check_same_thread=False)
            self._connection, self._process = database, os.getpid()
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            database.executescript(_TABLE)
        return self._connection

    def _recover(self, error: Exception, again: bool) -> None:
        self.close()
        if again and _is_damage(error):
            aside = _set_aside(self.folder / _FILE)
            _LOGGER.warning(
                "The cache %s is damaged (%s). It was renamed to %s; its %s are made again.",
                self.folder / _FILE,
                error,
                aside.name,
                self.holds,
            )
            return
        self._usable = False
        _LOGGER.warning(
            "The %s cannot be cached in %s (%s). This run is not affected, but a later one has to "
            "make them again. Free some space, point MIXUP_HF_CACHE elsewhere, or set "
            "`reuse: false`.",
            self.holds,
            self.folder,
            error,
        )


def _get(database: sqlite3.Connection, key: str) -> list[str] | None:
    row = database.execute("SELECT texts FROM batches WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    texts = _checked(row[0])
    database.execute("UPDATE batches SET used = ? WHERE key = ?", (time_ns(), key))
    return texts


def _checked(content: str) -> list[str]:
    """The sentences of a batch. SQLite does not notice a byte that the disk has changed.

    Raises:
        ValueError: They are not what was stored.
    """
    if content[:1] == "[":  # stored by an earlier version, without a checksum
        content = f"{crc32(content.encode()):08x}{content}"
    if content[:8] != f"{crc32(content[8:].encode()):08x}":
        raise ValueError("a batch of sentences is not what was stored")
    texts: list[str] = json.loads(content[8:])
    return texts


def _put(database: sqlite3.Connection, key: str, texts: Sequence[str], limit: int) -> None:
    content = json.dumps(list(texts))
    content = f"{crc32(content.encode()):08x}{content}"
    size = len(content) + len(key)
    if size > limit:
        return
    database.execute(
        "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", (key, content, size, time_ns())
    )
    (total,) = database.execute("SELECT SUM(bytes) FROM batches").fetchone()
    if total > limit:
        _evict(database, total - max(size, int(limit * (1 - _KEPT_FREE))))


def _evict(database: sqlite3.Connection, surplus: int) -> None:
    """Delete the batches used longest ago until at least `surplus` bytes are free."""
    keys = []
    for key, size in database.execute("SELECT key, bytes FROM batches ORDER BY used"):
        if surplus <= 0:
            break
        keys.append((key,))
        surplus -= size
    database.executemany("DELETE FROM batches WHERE key = ?", keys)
    database.execute("PRAGMA incremental_vacuum")


def _is_damage(error: Exception) -> bool:
    """Whether the content of the file is at fault, and not the disk or another process."""
    if isinstance(error, ValueError):
        return True
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.OperationalError
    )


def _set_aside(file: Path) -> Path:
    aside = file.with_name(f"{file.name}.damaged-{time_ns()}")
    for suffix in ("", "-wal", "-shm"):
        each = file.with_name(file.name + suffix)
        if each.exists():
            each.rename(aside if not suffix else aside.with_name(aside.name + suffix))
    return aside


@dataclass(frozen=True)
class Request:
    """A batch of mixes to decode.

    Attributes:
        texts: All texts that may be parents.
        parents: Rows of the parents of each mix (n, m).
        weights: Their weights (n, m).
        seed: Key of the random streams.
        lengths: Wanted lengths (n, S); None leaves them to the LLM.
        shares: The parents' shares (n, m), where their words are hinted; else None.
        interpolation: How the parents are mixed.
    """

    texts: Sequence[str]
    parents: Tensor
    weights: Tensor
    seed: tuple[int, ...]
    lengths: np.ndarray | None
    shares: Tensor | None
    interpolation: str

    def asked(self) -> dict[str, Any]:
        """What a decoder is given beside embeddings and seed key: `lengths` and `parents`."""
        found: dict[str, Any] = {} if self.lengths is None else {"lengths": self.lengths}
        if self.shares is not None:
            pairs = zip(self._parent_texts(), self.shares.tolist(), strict=True)
            found["parents"] = [list(zip(*pair, strict=True)) for pair in pairs]
        return found

    def key(self, store: SentenceStore, engine: str) -> str:
        """Its key in a store, when `engine` decodes."""
        # What is not asked for is not in the key: sentences decoded without it keep theirs.
        wanted: dict[str, Any] = {}
        if self.lengths is not None:
            wanted["lengths"] = self.lengths.tolist()
        if self.shares is not None:
            wanted |= {"hints": "parents", "shares": self.shares.tolist()}
        return store.key(
            parents=self._parent_texts(),
            weights=self.weights.tolist(),
            interpolation=self.interpolation,
            engine=engine,
            seed=self.seed,
            **wanted,
        )

    def _parent_texts(self) -> list[list[str]]:
        return [[self.texts[row] for row in rows] for rows in self.parents.tolist()]
