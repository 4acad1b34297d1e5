"""Decoded sentences kept on disk, found again by what they were decoded from.

A batch is one line, appended and flushed when it is decoded, to a file of this process's own: a
kill at any byte loses at most the batch being written, and processes never meet.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from mixup_hf import errors

_LOGGER = logging.getLogger(__name__)


class SentenceStore:
    """Batches of sentences by key; append-only.

    Only the places of the lines are held in memory.

    Args:
        folder: Where its files are; made when the first batch is put.
        identity: What all keys of this store depend on: aligner, engine, decode settings.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.identity = dict(identity)
        self._writable = True

    def key(self, **request: Any) -> str:
        """The key of a batch: SHA-256 of the identity and of what was asked for."""
        content = json.dumps([self.identity, request], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def get(self, key: str) -> list[str] | None:
        """The batch put under this key, by this run or an earlier one; None if there is none."""
        place = self._places.get(key)
        if place is None:
            return None
        file, offset = place
        try:
            with file.open("rb") as stream:
                stream.seek(offset)
                found, texts = _parse(stream.readline())
        except (OSError, ValueError) as error:
            _LOGGER.warning("%s has changed (%s); its sentences are decoded again.", file, error)
            return None
        return texts if found == key else None

    def put(self, key: str, texts: Sequence[str]) -> None:
        """Keep a batch. Where nothing can be written the run goes on without, and says so once."""
        if not self._writable:
            return
        line = _line(key, texts)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as stream:
                offset = stream.tell()
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            self._writable = False
            _LOGGER.warning(
                "Decoded sentences cannot be kept in %s (%s). They are used all the same, but a "
                "later run will have to decode them again. Free some space, point MIXUP_HF_CACHE "
                "elsewhere, or set `reuse: false`.",
                self.folder,
                error,
            )
            return
        self._places[key] = self._file, offset

    def __str__(self) -> str:
        return str(self.folder)

    @cached_property
    def _file(self) -> Path:
        return self.folder / f"{uuid4().hex}.jsonl"

    @cached_property
    def _places(self) -> dict[str, tuple[Path, int]]:
        places: dict[str, tuple[Path, int]] = {}
        for file in sorted(self.folder.glob("*.jsonl")):
            offset = 0
            for line in file.read_bytes().splitlines(keepends=True):
                try:
                    places[_parse(line)[0]] = file, offset
                except ValueError as error:
                    _LOGGER.warning(
                        "%s, byte %d: %s; these sentences are decoded again.", file, offset, error
                    )
                offset += len(line)
        return places


def _line(key: str, texts: Sequence[str]) -> bytes:
    # ASCII: no character of a sentence can be taken for the end of a line.
    body = json.dumps({"key": key, "texts": list(texts)})
    return f"{zlib.crc32(body.encode()):08x} {body}\n".encode()


def _parse(line: bytes) -> tuple[str, list[str]]:
    """Key and texts of a line; ValueError if it is not whole."""
    check, _, body = line.partition(b" ")
    if not body.endswith(b"\n") or check != b"%08x" % zlib.crc32(body[:-1]):
        raise errors.InvalidInput("a line that was not written to its end")
    content = json.loads(body)
    return content["key"], content["texts"]
