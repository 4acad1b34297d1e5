"""The pool: an epoch's mixed rows, on disk, that every process and worker draws from alike."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mixup_hf import errors
from mixup_hf.runtime import counter_rng
from mixup_hf.types import MixedExample

# What a stream of random numbers is for; part of its key, so that streams never meet.
_DRAWING = 2
_NOTHING = -1
PAUSED = -2  # nothing is drawn


class MixupPool:
    """Mixed rows, frozen for an epoch.

    Rows are published as one file per refill. A data-loader worker learns which file to read from
    a tensor in shared memory, so forked, spawned and persistent workers all see a refill that
    happened before they were asked for a batch. What a batch draws is a function of (seed, refill,
    content of the batch): not of workers, ranks or timing.

    Args:
        folder: Where the files go.
        seed: Seed of the draws.
    """

    def __init__(self, folder: str | Path, seed: int) -> None:
        self.folder = Path(folder)
        self.seed = seed
        self._current = torch.full((1,), _NOTHING, dtype=torch.int64).share_memory_()
        self._loaded: tuple[int, list[MixedExample]] = (_NOTHING, [])

    @property
    def refill(self) -> int:
        """The refill that is drawn from; -1 before the first, -2 after `publish_none`."""
        return int(self._current.item())

    def __len__(self) -> int:
        return len(self.rows()) if self.refill >= 0 else 0

    def path(self, refill: int) -> Path:
        """The file of a refill."""
        return self.folder / f"refill-{refill:05d}.jsonl"

    def write(self, refill: int, rows: Sequence[MixedExample]) -> Path:
        """Write a refill's file, atomically: it is whole or absent."""
        if not rows:
            raise errors.bad("rows", "hold at least one mixed row", rows)
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.path(refill)
        partial = target.with_suffix(f".partial-{os.getpid()}")
        write_rows(partial, rows)
        os.replace(partial, target)
        return target

    def publish(self, refill: int) -> None:
        """Draw from this refill from now on.

        Raises:
            FileNotFoundError: Its file has not been written.
        """
        if not self.path(refill).is_file():
            raise errors.MissingFile(f"The pool has no file {self.path(refill)}; write it first.")
        self._current.fill_(refill)

    def publish_none(self) -> None:
        """Draw nothing from now on: the model is to see real rows only, for a while."""
        self._current.fill_(PAUSED)

    def rows(self) -> list[MixedExample]:
        """The rows that are drawn from."""
        refill = self.refill
        if refill == _NOTHING:
            raise errors.InvalidState("The pool is empty: nothing has been published yet.")
        if self._loaded[0] != refill:
            self._loaded = (refill, read_rows(self.path(refill)))
        return self._loaded[1]

    def draw(self, keys: Sequence[bytes], count: int) -> list[tuple[int, MixedExample]]:
        """Draw `count` rows for a batch.

        Rows are drawn without repetition until the pool is used up.

        Args:
            keys: What identifies the batch's real rows; their order does not matter.
            count: How many.

        Returns:
            `count` pairs of position in the pool and row; none after `publish_none`.
        """
        if self.refill == PAUSED:
            return []
        rows = self.rows()
        digest = zlib.crc32(b"\0".join(sorted(keys)))
        rng = counter_rng(self.seed, _DRAWING, self.refill, digest)
        turns = -(-count // len(rows))
        positions = [int(at) for _ in range(turns) for at in rng.permutation(len(rows))]
        return [(at, rows[at]) for at in positions[:count]]

    def __getstate__(self) -> dict[str, Any]:
        """Workers get the handle, not the rows; they read the file."""
        return self.__dict__ | {"_loaded": (_NOTHING, [])}


def write_rows(path: Path, rows: Sequence[MixedExample]) -> None:
    """Write rows as JSON lines and flush them to the disk."""
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row.to_json(), ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_rows(path: Path) -> list[MixedExample]:
    """Read what `write_rows` wrote.

    Raises:
        ValueError: A line is damaged.
    """
    rows = []
    # Not splitlines(): a sentence may hold characters that it takes for line ends.
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(MixedExample.from_json(json.loads(line)))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise errors.InvalidInput(
                f"{path}, line {number}, is no mixed row ({error}). Delete the file: it is made "
                "again from the seed."
            ) from error
    return rows
