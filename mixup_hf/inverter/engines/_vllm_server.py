"""The client of a vLLM server."""

from __future__ import annotations

import base64
import io
import json
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.inverter.engines.base import DecodeSettings, Writer
from mixup_hf.inverter.engines.vllm import ServerError, ServerSettings
from mixup_hf.runtime import counter_rng

if TYPE_CHECKING:
    import requests

_START = (
    "Start one: `mixup-hf export llm/`, then `vllm serve llm/ --enable-prompt-embeds "
    "--max-model-len 256`."
)
_UNGUIDED = (
    "This aligner guides the LLM's logits while it decodes (`guidance` in its config), which a "
    "server cannot do: its sentences are less close to the mixes. `engine: auto` decodes here."
)
_CHECK_SECONDS = 10.0
_LONGEST_ANSWER = 1 << 22  # bytes
_COMPARED = 4  # tokens
_AGREEING = 0.5  # share of first tokens: rounding changes a few, other weights nearly all


class VllmServer:
    """A `Writer` that sends prompts to a vLLM server.

    A row's sentence depends on the row's stream, not on what else is decoded with it. It is
    reproducible bit for bit only as far as the server's arithmetic is.

    Args:
        url: Address of the server: `http://host:8000`.
        end_ids: Token ids that end a sentence.
        settings: How requests are sent.

    Raises:
        ServerError: No server answers at this address.
    """

    def __init__(self, url: str, end_ids: Sequence[int], settings: ServerSettings) -> None:
        self.url = url.rstrip("/")
        self.settings = settings
        self._end_ids = list(end_ids)
        self._told = False
        self._session = _open_session(settings.max_inflight)
        self._call("GET", "/health", _CHECK_SECONDS)
        listed = self._call("GET", "/v1/models", _CHECK_SECONDS)
        self.model = self._text(listed, "data", "id")

    @property
    def name(self) -> str:
        """`vllm:MODEL`."""
        return f"vllm:{self.model}"

    def write(
        self,
        prompts: Tensor,
        settings: DecodeSettings,
        streams: Sequence[tuple[int, ...]],
        lengths: Sequence[int] | None = None,
        favour: Tensor | None = None,
    ) -> list[str]:
        """Decode one sentence per prompt (B, P, H), without guidance: `favour` is not sent.

        Raises:
            ServerError: The server does not answer, is too slow, or rejects the request.
            InvalidInput: There are `lengths`.
        """
        _refuse(lengths)
        if favour is not None and not self._told:
            self._told = True
            warnings.warn(_UNGUIDED, stacklevel=2)
        prompts = prompts.to(torch.bfloat16).cpu()
        with ThreadPoolExecutor(self.settings.max_inflight) as pool:
            return list(pool.map(self._one, prompts, streams, repeat(settings)))

    def check(self, prompts: Tensor, local: Writer) -> None:
        """Compare the first tokens of some sentences with those decoded in this process.

        Raises:
            ServerError: The server rejects prompt embeddings, or serves another LLM.
        """
        beginning = DecodeSettings(max_new_tokens=_COMPARED, temperature=0.0)
        streams = [(0, row) for row in range(len(prompts))]
        found = self.write(prompts, beginning, streams)
        expected = local.write(prompts, beginning, streams)
        same = sum(one.strip() == other.strip() for one, other in zip(found, expected, strict=True))
        if same < _AGREEING * len(prompts):
            raise ServerError(
                f"The server at {self.url} serves {self.model!r}, which is not this aligner's LLM: "
                f"only {same} of {len(prompts)} sentences begin with the same tokens. Serve the "
                "LLM that `mixup-hf export` writes for this aligner."
            )

    def _one(self, prompt: Tensor, stream: tuple[int, ...], settings: DecodeSettings) -> str:
        file = io.BytesIO()
        torch.save(prompt.clone(), file)  # the format vLLM expects; it loads tensors only
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
        answer = self._call("POST", "/v1/completions", self.settings.timeout, body)
        return self._text(answer, "choices", "text")

    def _call(
        self, method: str, path: str, timeout: float, body: dict[str, Any] | None = None
    ) -> bytes:
        import requests

        try:
            with self._session.request(
                method, self.url + path, json=body, timeout=timeout, stream=True
            ) as answer:
                content = self._read(answer, time.monotonic() + timeout)
        except (requests.Timeout, TimeoutError) as error:
            raise ServerError(
                f"The vLLM server at {self.url} has not answered for {timeout:g} seconds. Is it "
                "overloaded? Lower `max_inflight`, or raise `server_timeout`."
            ) from error
        except requests.RequestException as error:
            raise ServerError(
                f"No vLLM server answers at {self.url} ({type(error).__name__}). {_START}"
            ) from error
        if not answer.ok:
            reason = content.decode(errors="replace")[:300]
            way_out = _START if "embed" in reason else "See the server's log."
            raise ServerError(
                f"The vLLM server at {self.url} rejected {path} ({answer.status_code}: {reason}). "
                f"{way_out}"
            )
        return content

    def _read(self, answer: requests.Response, deadline: float) -> bytes:
        """The body; a server that sends a byte now and then does not hold this process up.

        Raises:
            TimeoutError: The deadline has passed.
            ServerError: The body is larger than a sentence can be.
        """
        content = b""
        for piece in answer.iter_content(1 << 16):
            content += piece
            if time.monotonic() > deadline:
                raise TimeoutError
            if len(content) > _LONGEST_ANSWER:
                raise self._garbage(content)
        return content

    def _text(self, content: bytes, listed: str, key: str) -> str:
        """The text under `key` of the first entry of the list `listed`."""
        try:
            text = json.loads(content)[listed][0][key]
            errors.text(key, text)
        except (ValueError, RecursionError, LookupError, TypeError) as error:
            raise self._garbage(content) from error
        return str(text)

    def _garbage(self, content: bytes) -> ServerError:
        return ServerError(
            f"The server at {self.url} answers, but not as a vLLM server does: {content[:100]!r}. "
            "Check the address and the server's log."
        )


def _refuse(lengths: Sequence[int] | None) -> None:
    if lengths is not None:
        raise errors.InvalidInput(
            "`lengths` cannot be matched by a vLLM server: it does not tell how likely an end is. "
            "Leave them out, or decode in this process (`engine: auto`)."
        )


def _open_session(connections: int) -> requests.Session:
    errors.optional("requests", "vllm", "The vllm engine")
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    # Only requests that never reached the server are retried: no sentence is decoded twice.
    retry = Retry(connect=3, read=False, backoff_factor=0.2, allowed_methods=None)
    adapter = HTTPAdapter(pool_maxsize=connections, max_retries=retry)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return session


class WithFallback:
    """Decodes on a server until it fails, then in this process.

    Args:
        server: The server; None if it did not answer in the first place.
        local: Decodes in this process.
    """

    def __init__(self, server: Writer | None, local: Writer) -> None:
        self._now = server or local
        self._local = local

    @property
    def name(self) -> str:
        """The name of the one in use."""
        return self._now.name

    def write(
        self,
        prompts: Tensor,
        settings: DecodeSettings,
        streams: Sequence[tuple[int, ...]],
        lengths: Sequence[int] | None = None,
        favour: Tensor | None = None,
    ) -> list[str]:
        """Decode on the server, or in this process once that has failed.

        Raises:
            InvalidInput: There are `lengths`, which only one of the two could match.
        """
        _refuse(lengths)
        try:
            return self._now.write(prompts, settings, streams, favour=favour)
        except ServerError as error:
            _warn(error, self._local)
            self._now = self._local
        return self._now.write(prompts, settings, streams, favour=favour)


def connect(
    url: str, end_ids: Sequence[int], settings: ServerSettings, local: Writer, probes: Tensor
) -> Writer:
    """Connect to a server and check that it serves the right LLM.

    Args:
        url: Address of the server.
        end_ids: As for `VllmServer`.
        settings: How requests are sent.
        local: Decodes in this process: the reference, and the fallback.
        probes: Prompts (B, P, H) to compare on.

    Raises:
        ServerError: It does not answer or serves another LLM, and there is no fallback.
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


def _warn(error: ServerError, local: Writer) -> None:
    warnings.warn(
        f"{error} Falling back to decoding in this process with {local.name}.", stacklevel=3
    )
