"""What an engine has to provide, and what it gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mixup_hf import errors

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class DecodeSettings:
    """How sentences are decoded.

    Attributes:
        max_new_tokens: Upper bound on the length of a sentence, in tokens.
        temperature: 0 decodes greedily; higher is more varied.
        top_p: Nucleus sampling: the smallest set of tokens with at least this probability is kept.
        top_k: At most this many tokens are considered at each step, before `top_p`.
        num_candidates: Decode this many per embedding and keep the one whose round trip
            (`encode(sentence)`) is closest to the embedding.
        corrections: How often part of what the closest sentence so far lacks is added to what it
            was decoded from, and the result decoded; the closest sentence of all is kept.
        close_enough: A row whose closest sentence has at least this cosine to the embedding is not
            decoded again; None always decodes `num_candidates` and `corrections`.
        questions: Whether sentences may be questions: begin with an English question word, or have
            a question mark. A server ignores this.
    """

    max_new_tokens: int = 40
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 50
    num_candidates: int = 1
    questions: bool = True
    corrections: int = 0
    close_enough: float | None = None

    def __post_init__(self) -> None:
        errors.at_least("max_new_tokens", self.max_new_tokens, 1)
        errors.at_least("temperature", self.temperature, 0.0, "Use 0 for greedy decoding.")
        errors.positive("top_p", self.top_p)
        errors.in_range("top_p", self.top_p, 0.0, 1.0, "Use 1.0 to switch nucleus sampling off.")
        errors.at_least("top_k", self.top_k, 1)
        errors.at_least("num_candidates", self.num_candidates, 1)
        errors.at_least("corrections", self.corrections, 0)
        if self.close_enough is not None:
            errors.positive("close_enough", self.close_enough)
            errors.in_range("close_enough", self.close_enough, 0.0, 1.0, "It is a cosine.")
        if self.num_candidates > 1 and self.temperature == 0:
            raise errors.InvalidInput(
                f"`num_candidates` = {self.num_candidates} requests different candidates, but "
                "`temperature` = 0 makes them all identical. Raise `temperature`, or ask for 1."
            )


class Decoding(Protocol):
    """One batch of sentences being decoded."""

    def start(self, prompts: Tensor) -> Tensor:
        """Read prompt embeddings (B, P, H); returns the next tokens' logits (B, V)."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token (B,) per row; returns the next tokens' logits (B, V)."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (indices into the current batch).

        A row may move forward only: `rows[i] >= i`.
        """
        ...


class Engine(Protocol):
    """An LLM in this process that decodes batches."""

    @property
    def name(self) -> str:
        """Engine and compute type, such as `fast:bfloat16`; recorded in the rows it makes."""
        ...

    def parts(self, count: int) -> int:
        """Into how many batches `count` rows are best cut, to be decoded side by side.

        Must depend on `count` only, not on the number of cores: other batches round differently.
        """
        ...

    def size_for(self, alive: int, size: int) -> int:
        """The best size for a batch of `size` rows of which `alive` are unfinished."""
        ...

    def decoding(self, num_rows: int, length: int) -> Decoding:
        """Begin a batch of `num_rows` sequences of at most `length` positions, prompt included."""
        ...


class Writer(Protocol):
    """Turns prompts into sentences, in this process or on a server."""

    @property
    def name(self) -> str:
        """The engine as recorded in the rows it makes: `fast:bfloat16`, `vllm:MODEL`."""
        ...

    def write(
        self,
        prompts: Tensor,
        settings: DecodeSettings,
        streams: Sequence[tuple[int, ...]],
        lengths: Sequence[int] | None = None,
        favour: Tensor | None = None,
    ) -> list[str]:
        """Decode one sentence per prompt (B, P, H); row r samples from the stream `streams[r]`.

        With `lengths` (B), in tokens, sentences end near their wanted length. `favour` are nats
        (B, V) added to the logits, those of a token until it has been chosen. It is None unless the
        aligner is guided (`AlignerConfig.guidance`). A server that cannot do this must say so.

        Raises:
            InvalidInput: `lengths` are given and it cannot choose the length of a sentence.
        """
        ...


@dataclass(frozen=True)
class DecodingParts:
    """What an engine is made from.

    Attributes:
        llm: The causal LM; its LoRA is merged, or lives in hooks of its layers (4-bit weights).
        tokenizer: The LLM's.
        end_ids: Token ids that end a sentence.
        dtype: Compute type the user asked for; None leaves it to the engine.
        prompts: Makes prompts (B, P, H) from texts, to compare a server with the local LLM.
        settings: Settings for the engine of this name, if the user gave any.
    """

    llm: Any
    tokenizer: PreTrainedTokenizerBase
    end_ids: Sequence[int]
    dtype: torch.dtype | None
    prompts: Callable[[Sequence[str]], Tensor]
    settings: Any = None


class EngineChoice(ABC):
    """An engine that can be chosen by name: subclass, and register the class.

    Attributes:
        copies_weights: Whether it decodes from its own copy of the weights, rounded to its own
            compute type. On a CPU the LLM is then loaded in float32, so that it is rounded once.
        matches_length: Whether its writer takes the wanted lengths of sentences.
    """

    copies_weights: ClassVar[bool] = False
    matches_length: ClassVar[bool] = False

    def check(self, argument: str) -> None:
        """Raise `InvalidInput` if what follows the name and a colon is not valid. Must be cheap."""
        if argument:
            raise errors.bad("engine", "be a name without an argument", argument)

    def why_not(self, llm: Any) -> str | None:
        """Why it cannot copy the weights of this LLM; None if it can."""
        return None

    @abstractmethod
    def writer(self, argument: str, parts: DecodingParts) -> Writer:
        """Make what turns prompts into sentences."""


class LocalChoice(EngineChoice):
    """An engine that runs the LLM in this process: implement `load`."""

    matches_length = True

    @abstractmethod
    def load(self, llm: Any, dtype: torch.dtype | None) -> Engine:
        """Make the engine for a causal LM.

        Raises:
            InvalidInput: It cannot run this LLM.
        """

    def writer(self, argument: str, parts: DecodingParts) -> Writer:
        """Decode in this process."""
        from mixup_hf.inverter.sampling import LocalWriter

        engine = self.load(parts.llm, parts.dtype)
        return LocalWriter(engine, parts.tokenizer, parts.end_ids)


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, `bfloat16`, ..."""
    return str(dtype).removeprefix("torch.")
