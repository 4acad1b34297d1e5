"""Decoding by a vLLM server: prompt embeddings go out, sentences come back.

Projector, hints and prompt stay here, so an aligner that is refined needs no word to the server.
What it serves is the LLM with the LoRA merged in, as `Inverter.export_llm` writes it:

    mixup-hf export llm/
    vllm serve llm/ --enable-prompt-embeds --max-model-len 256

Tensor parallelism, several replicas and several nodes are the server's own affair.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import requests
import torch
from requests.adapters import HTTPAdapter
from torch import Tensor
from urllib3.util import Retry

from mixup_hf import errors
from mixup_hf.inverter.engines.sampling import DecodeSettings, Writes
from mixup_hf.runtime import counter_rng

SERVED = "vllm:"
_START = (
    "Start one: `mixup-hf export llm/`, then `vllm serve llm/ --enable-prompt-embeds "
    "--max-model-len 256`."
)
_CHECK_SECONDS = 10.0
_COMPARED = 4  # tokens
_AGREEING = 0.5  # share of beginnings: rounding changes a few of them, other weights nearly all


class ServerError(errors.InvalidState):
    """A vLLM server is gone, or is not what it has to be."""


@dataclass(frozen=True)
class ServerSettings:
    """How a server is talked to.

    Attributes:
        timeout: Seconds that one sentence may take.
        max_inflight: Sentences asked for at a time.
        fallback: Decode here, and say so, when the server cannot; else that is an error.
    """

    timeout: float = 120.0
    max_inflight: int = 64
    fallback: bool = False

    def __post_init__(self) -> None:
        errors.positive("server_timeout", self.timeout)
        errors.at_least("max_inflight", self.max_inflight, 1)


class VllmServer:
    """A vLLM server as a `Writes`.

    A row's sentence depends on the row's own stream, not on what else is decoded with it; but it is
    bit for bit the same only as far as the server's arithmetic is.

    Args:
        url: Where it is: `http://host:8000`.
        end_ids: Token ids that end a sentence.
        settings: How to talk to it.

    Raises:
        ServerError: No server answers there.
    """

    def __init__(self, url: str, end_ids: Sequence[int], settings: ServerSettings) -> None:
        self.url = url.rstrip("/")
        self.settings = settings
        self._end_ids = list(end_ids)
        self._session = requests.Session()
        # Only what never reached the server is sent again: a sentence is not asked for twice.
        retry = Retry(connect=3, read=False, backoff_factor=0.2, allowed_methods=None)
        adapter = HTTPAdapter(pool_maxsize=settings.max_inflight, max_retries=retry)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        self._call("GET", "/health", _CHECK_SECONDS)
        listed = self._call("GET", "/v1/models", _CHECK_SECONDS).json()
        self.model: str = listed["data"][0]["id"]

    @property
    def name(self) -> str:
        """`vllm:MODEL`."""
        return f"{SERVED}{self.model}"

    def write(
        self, prompts: Tensor, settings: DecodeSettings, streams: Sequence[tuple[int, ...]]
    ) -> list[str]:
        """Decode one sentence per prompt (B, P, H).

        Raises:
            ServerError: It is gone, too slow, or refuses.
        """
        prompts = prompts.to(torch.bfloat16).cpu()
        with ThreadPoolExecutor(self.settings.max_inflight) as pool:
            return list(pool.map(self._one, prompts, streams, repeat(settings)))

    def check(self, prompts: Tensor, local: Writes) -> None:
        """Ask for the beginnings of some sentences, and compare them with those made here.

        Raises:
            ServerError: It takes no prompt embeddings, or its LLM is another one.
        """
        beginning = DecodeSettings(max_new_tokens=_COMPARED, temperature=0.0)
        streams = [(0, row) for row in range(len(prompts))]
        found = self.write(prompts, beginning, streams)
        expected = local.write(prompts, beginning, streams)
        same = sum(one.strip() == other.strip() for one, other in zip(found, expected, strict=True))
        if same < _AGREEING * len(prompts):
            raise ServerError(
                f"The server at {self.url} serves {self.model!r}, which says other words than "
                f"this aligner's LLM ({same} of {len(prompts)} sentences begin alike). Serve what "
                "`mixup-hf export` writes for this aligner."
            )

    def _one(self, prompt: Tensor, stream: tuple[int, ...], settings: DecodeSettings) -> str:
        file = io.BytesIO()
        torch.save(prompt.clone(), file)  # what vLLM reads; it loads weights only
        body = {
            "model": self.model,
            "prompt_embeds": base64.b64encode(file.getvalue()).decode(),
            "max_tokens": settings.max_new_tokens,
            "min_tokens": 1,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "seed": int(counter_rng(*stream).integers(2**31)),
            "stop_token_ids": self._end_ids,
        }
        answer = self._call("POST", "/v1/completions", self.settings.timeout, body).json()
        text: str = answer["choices"][0]["text"]
        return text

    def _call(
        self, method: str, path: str, timeout: float, body: dict[str, Any] | None = None
    ) -> requests.Response:
        try:
            answer = self._session.request(method, self.url + path, json=body, timeout=timeout)
        except requests.Timeout as error:
            raise ServerError(
                f"The vLLM server at {self.url} has not answered for {timeout:g} seconds. Is it "
                "overloaded? Lower `max_inflight`, or raise `server_timeout`."
            ) from error
        except requests.RequestException as error:
            raise ServerError(
                f"No vLLM server answers at {self.url} ({type(error).__name__}). {_START}"
            ) from error
        if not answer.ok:
            said = answer.text[:300]
            way_out = _START if "embed" in said else "Its log says more."
            raise ServerError(
                f"The vLLM server at {self.url} refuses {path} ({answer.status_code}: {said}). "
                f"{way_out}"
            )
        return answer


class WithFallback:
    """A server, and what decodes here from the moment it fails.

    Args:
        server: The server; None if it was not there to begin with.
        local: What decodes here.
    """

    def __init__(self, server: Writes | None, local: Writes) -> None:
        self._now = server or local
        self._local = local

    @property
    def name(self) -> str:
        """Of what decodes now."""
        return self._now.name

    def write(
        self, prompts: Tensor, settings: DecodeSettings, streams: Sequence[tuple[int, ...]]
    ) -> list[str]:
        """Decode there, or, once that has failed, here."""
        try:
            return self._now.write(prompts, settings, streams)
        except ServerError as error:
            _warn(error, self._local)
            self._now = self._local
        return self._now.write(prompts, settings, streams)


def connect(
    url: str, end_ids: Sequence[int], settings: ServerSettings, local: Writes, probes: Tensor
) -> Writes:
    """A server that was found to serve the right LLM.

    Args:
        url: Where it is.
        end_ids: As for `VllmServer`.
        settings: How to talk to it.
        local: What decodes here: it is compared with, and it is the fallback.
        probes: Prompts (B, P, H) to compare on.

    Raises:
        ServerError: It is not there or not right, and there is to be no fallback.
    """
    try:
        server = VllmServer(url, end_ids, settings)
        server.check(probes, local)
    except ServerError as error:
        if not settings.fallback:
            raise
        _warn(error, local)
        return WithFallback(None, local)
    return WithFallback(server, local) if settings.fallback else server


def _warn(error: ServerError, local: Writes) -> None:
    warnings.warn(f"{error} From here on {local.name} decodes in this process.", stacklevel=3)
