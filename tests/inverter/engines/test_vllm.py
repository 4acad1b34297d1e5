"""A vLLM server as a stub: its requests, answered by the tiny LLM."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_encoder, make_inverter, make_llm, make_rows, word_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from mixup_hf import InversedMixup, Inverter, MixupConfig
from mixup_hf.inverter.engines import make_engine
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.inverter.engines.vllm import ServerError, ServerSettings
from mixup_hf.inverter.prompt import end_ids
from mixup_hf.inverter.sampling import LocalWriter

TEXTS, LABELS = make_rows(12)


@dataclass
class Stub:
    """What the server does, and what it was asked."""

    llm: Any
    takes_embeddings: bool = True
    gone: bool = False
    wait: float = 0.0
    asked: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        tokenizer = word_tokenizer(classifier=False)
        engine = make_engine(self.llm, "transformers")
        self.writer = LocalWriter(engine, tokenizer, end_ids(tokenizer, self.llm))
        self._lock = threading.Lock()
        self._now = 0

    def complete(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.asked.append(body)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            time.sleep(self.wait)
            return self._answer(body)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.gone:
            return 500, {"error": "EngineDeadError"}
        if not self.takes_embeddings:
            return 400, {"error": "You must set `--enable-prompt-embeds` to input `prompt_embeds`."}
        file = io.BytesIO(base64.b64decode(body["prompt_embeds"]))
        prompt = torch.load(file, weights_only=True)
        assert prompt.ndim == 2 and prompt.dtype == torch.bfloat16
        names = ("temperature", "top_p", "top_k")
        settings = DecodeSettings(body["max_tokens"], **{name: body[name] for name in names})
        text = self.writer.write(prompt[None].float(), settings, [(body["seed"],)])[0]
        return 200, {"choices": [{"text": text}]}


@pytest.fixture
def serve() -> Iterator[Callable[..., Stub]]:
    servers = []

    def start(llm: Any = None, **settings: Any) -> Stub:
        stub = Stub(llm or make_llm(), **settings)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                models = {"data": [{"id": "tiny-llm"}]}
                self.answer(200, models if self.path == "/v1/models" else {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(*stub.complete(json.loads(body)))

            def answer(self, status: int, content: dict[str, Any]) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        stub.url = f"http://127.0.0.1:{server.server_port}"
        return stub

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def served(stub: Stub, **settings: Any) -> Inverter:
    plain = make_inverter()
    return Inverter(
        plain.encoder,
        plain.aligner,
        plain.llm,
        plain.tokenizer,
        fingerprint="f00d",
        engine=f"vllm:{stub.url}",
        server=ServerSettings(**settings),
    )


def rounded_prompts() -> Inverter:
    """An inverter that decodes here what goes over the wire: prompts in bf16."""
    inverter = make_inverter()
    prompt = inverter.prompts
    setattr(inverter, "prompts", lambda rows: prompt(rows).bfloat16().float())  # noqa: B010
    return inverter


def test_a_server_says_what_is_said_here(serve: Callable[..., Stub]) -> None:
    inverter = served(serve())
    embeddings = make_encoder().encode(TEXTS)
    greedy: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 8}
    assert inverter.engine == "vllm:tiny-llm"
    assert inverter.invert(embeddings, **greedy) == rounded_prompts().invert(embeddings, **greedy)


def test_a_row_has_its_own_seed_and_says_so_to_the_server(serve: Callable[..., Stub]) -> None:
    stub = serve()
    inverter = served(stub)
    embeddings = make_encoder().encode(TEXTS[:1]).expand(6, -1)
    hot: dict[str, Any] = {"temperature": 1.5, "max_new_tokens": 8, "top_k": 40, "top_p": 0.9}
    stub.asked.clear()
    first = inverter.invert(embeddings, seed=3, **hot)
    seeds = {body["seed"] for body in stub.asked}
    assert len(seeds) == 6 and len(set(first)) > 1
    for body in stub.asked:
        sent = (body["temperature"], body["max_tokens"], body["top_k"], body["top_p"])
        assert sent == (1.5, 8, 40, 0.9)
        assert body["min_tokens"] == 1 and body["stop_token_ids"] and body["model"] == "tiny-llm"
    assert inverter.invert(embeddings, seed=3, **hot) == first
    assert inverter.invert(embeddings[2:], seed=3, batch_size=1, **hot) == first[:4]
    assert inverter.invert(embeddings, seed=4, **hot) != first


def test_wanted_lengths_are_refused_before_anything_is_asked(serve: Callable[..., Stub]) -> None:
    stub = serve()
    inverter = served(stub)
    asked = len(stub.asked)
    with pytest.raises(ValueError, match="`lengths` cannot be matched by a vLLM server"):
        inverter.invert(make_encoder().encode(TEXTS), lengths=[3] * len(TEXTS))
    assert len(stub.asked) == asked


def test_no_more_is_asked_at_a_time_than_allowed(serve: Callable[..., Stub]) -> None:
    stub = serve(wait=0.02)
    served(stub, max_inflight=3).invert(make_encoder().encode(TEXTS), max_new_tokens=2)
    assert stub.most_at_once == 3


def test_no_server_is_said_with_the_way_to_start_one() -> None:
    stub = Stub(make_llm(), url="http://127.0.0.1:9")
    with pytest.raises(ServerError, match=r"No vLLM server answers at http://127.0.0.1:9 .*Start"):
        served(stub)


def test_a_server_without_prompt_embeddings_is_refused(serve: Callable[..., Stub]) -> None:
    with pytest.raises(ServerError, match=r"\(400: .* Start one: .* --enable-prompt-embeds"):
        served(serve(takes_embeddings=False))


def test_a_server_of_another_llm_is_refused(serve: Callable[..., Stub]) -> None:
    with pytest.raises(ServerError, match=r"'tiny-llm', which is not this aligner's LLM.* export"):
        served(serve(make_llm(seed=7)))


def test_a_slow_server_is_an_error(serve: Callable[..., Stub]) -> None:
    with pytest.raises(ServerError, match=r"not answered for 0.05 seconds.*`server_timeout`"):
        served(serve(wait=0.5), timeout=0.05)


def test_a_server_that_goes_is_an_error_with_its_answer(serve: Callable[..., Stub]) -> None:
    stub = serve()
    inverter = served(stub)
    stub.gone = True
    with pytest.raises(ServerError, match=r"500: .*EngineDeadError.* See the server's log"):
        inverter.invert(make_encoder().encode(TEXTS))


def test_on_wish_it_goes_on_here_and_every_row_says_what_decoded_it(
    serve: Callable[..., Stub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXUP_HF_CACHE", str(tmp_path))
    stub = serve()
    config = MixupConfig(chunk_size=4, max_new_tokens=4, intrusion="off", label_source="parents")
    mixup = InversedMixup(served(stub, fallback=True), TEXTS, LABELS, config=config)
    rows = mixup.producer.chunk(0, 0, 12)
    assert {row.engine for row in rows} == {"vllm:tiny-llm"}
    stub.gone = True
    with pytest.warns(UserWarning, match="EngineDeadError.*Falling back .* with fast:"):
        rows += mixup.producer.chunk(0, 1, 12)
    rows += mixup.producer.chunk(0, 2, 12)
    assert [row.engine.split(":")[0] for row in rows] == ["vllm"] * 4 + ["fast"] * 8
    local = InversedMixup(make_inverter(), TEXTS, LABELS, config=replace(config, length="free"))
    local.producer.engine = lambda: mixup.inverter.engine
    assert [row.text for row in local.producer.chunk(0, 1, 12)] == [row.text for row in rows[4:8]]
    assert local.producer.reused == 4  # kept under the engine that had decoded them


def test_a_server_that_is_not_there_to_begin_with_is_replaced_too() -> None:
    stub = Stub(make_llm(), url="http://127.0.0.1:9")
    with pytest.warns(UserWarning, match="No vLLM server answers"):
        inverter = served(stub, fallback=True)
    assert inverter.engine.startswith("fast:")


def test_what_is_exported_is_what_decodes_here(tmp_path: Path) -> None:
    inverter = make_inverter()
    folder = inverter.export_llm(tmp_path / "llm", torch.float32)
    llm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert inverter.llm.dtype == torch.float32
    tokens = torch.tensor([[7, 8, 9]])
    torch.testing.assert_close(llm(tokens).logits, inverter.llm(tokens).logits)
    assert AutoTokenizer.from_pretrained(folder)("the bank") == inverter.tokenizer("the bank")


def test_an_engine_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="`engine` must .*vllm:http://host:8000"):
        MixupConfig(engine="vllm")
