"""Engines: what runs the language model. One file each, added with `@register("engine", ...)`.

An engine is written as its name, or as `name:argument` (`vllm:http://host:8000`). Nothing here
loads torch before an engine is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixup_hf import errors, registry
from mixup_hf.inverter.engines.base import DecodingParts, EngineChoice, LocalChoice

if TYPE_CHECKING:
    import torch

    from mixup_hf.inverter.engines.base import Engine, Writer


def find_engine(spec: str) -> tuple[EngineChoice, str]:
    """The registered engine and the argument of a spec such as `fast` or `vllm:http://host:8000`.

    Raises:
        InvalidInput: There is no such engine, or it does not take this argument.
    """
    name, _, argument = spec.partition(":")
    usages = ", ".join(repr(entry.usage) for entry in registry.entries("engine"))
    if name not in registry.names("engine"):
        raise errors.bad("engine", f"be one of {usages}", spec)
    choice: EngineChoice = registry.get("engine", name)()
    choice.check(argument)
    return choice, argument


def check_engine(spec: str) -> None:
    """Raise `InvalidInput` unless `spec` names a registered engine, with a valid argument."""
    find_engine(spec)


def make_engine(llm: Any, name: str, dtype: torch.dtype | None = None) -> Engine:
    """Make an engine that runs an LLM in this process.

    Args:
        llm: The causal LM; its LoRA is merged.
        name: `"transformers"`, `"fast"`, `"auto"`, or another registered engine of this kind.
        dtype: Compute type of an engine that packs a copy of the weights. Default: the fastest.

    Raises:
        InvalidInput: There is no such engine, it does not run in this process, or it cannot run
            this LLM.
    """
    choice, _ = find_engine(name)
    if not isinstance(choice, LocalChoice):
        raise errors.bad("engine", "run in this process", name, "Use 'auto'.")
    return choice.load(llm, dtype)


def make_writer(spec: str, parts: DecodingParts) -> Writer:
    """Make what turns prompts into sentences, with the engine of that spec.

    Raises:
        InvalidInput: As for `find_engine`, or the engine cannot run this LLM.
        ServerError: The engine is a server that does not answer or serves another LLM.
    """
    choice, argument = find_engine(spec)
    return choice.writer(argument, parts)
