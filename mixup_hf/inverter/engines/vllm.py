"""Decoding on a vLLM server: prompt embeddings are sent, sentences come back.

Projector, hints and prompt stay in this process, so an aligner that is refined during training
needs no update of the server. The server runs the LLM with the LoRA merged in, as
`Inverter.export_llm` writes it:

    mixup-hf export llm/
    vllm serve llm/ --enable-prompt-embeds --max-model-len 256

Tensor parallelism, replicas and multiple nodes are configured on the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixup_hf import errors
from mixup_hf.inverter.engines.auto import Auto
from mixup_hf.inverter.engines.base import DecodingParts, EngineChoice, Writer
from mixup_hf.registry import register

# Sentences on which a server is compared with the local LLM.
_PROBES = (
    "Where is the nearest station?",
    "A new phone was shown to the press on Monday.",
    "She thanked her mother for the cake.",
    "Shares fell after the bank's warning.",
    "I never liked the second half of that film.",
    "The law will be changed before the election.",
    "Please turn the lights off in the kitchen.",
    "Two goals in the last minute decided the match.",
)
_EXAMPLE = "vllm:http://host:8000"


class ServerError(errors.InvalidState):
    """A vLLM server does not answer, or does not serve what it should."""


@dataclass(frozen=True)
class ServerSettings:
    """How requests are sent to a server.

    Attributes:
        timeout: Seconds that one sentence may take.
        max_inflight: Requests in flight at a time, one sentence each.
        fallback: On a server error, warn and decode in this process instead of raising.
    """

    timeout: float = 120.0
    max_inflight: int = 64
    fallback: bool = False

    def __post_init__(self) -> None:
        errors.positive("server_timeout", self.timeout)
        errors.at_least("max_inflight", self.max_inflight, 1)


@register("engine", "vllm", help="a vLLM server at that address", usage="vllm:http://host:8000")
class Vllm(EngineChoice):
    """Decodes on a server; the local LLM is what it is compared with, and the fallback."""

    copies_weights = True  # the local engine does

    def check(self, argument: str) -> None:
        """The argument is the server's address."""
        if not argument.startswith(("http://", "https://")):
            given = f"vllm:{argument}" if argument else "vllm"
            raise errors.bad("engine", f"give a server as {_EXAMPLE!r}", given)

    def why_not(self, llm: Any) -> str | None:
        """As for the local engine."""
        return Auto().why_not(llm)

    def writer(self, argument: str, parts: DecodingParts) -> Writer:
        """Connect to the server and compare a few sentences with the local LLM's.

        Raises:
            ServerError: It does not answer or serves another LLM, and there is no fallback.
            MissingPackage: `requests` is not installed.
        """
        from mixup_hf.inverter.engines._vllm_server import connect

        local = Auto().writer("", parts)
        settings = parts.settings or ServerSettings()
        return connect(argument, parts.end_ids, settings, local, parts.prompts(_PROBES))
