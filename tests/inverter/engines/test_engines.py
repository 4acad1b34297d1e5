"""Engines are chosen through the registry: one file each, cheap to import."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import make_encoder, make_inverter, make_llm

from mixup_hf import Inverter, registry
from mixup_hf.errors import InvalidInput
from mixup_hf.inverter.engines import check_engine, make_engine
from mixup_hf.inverter.engines.base import DecodingParts, EngineChoice, Writer
from mixup_hf.inverter.engines.transformers import cache_argument

HEAVY = [
    "torch",
    "numpy",
    "transformers",
    "accelerate",
    "peft",
    "bitsandbytes",
    "requests",
    "huggingface_hub",
]


def test_names_are_checked_without_loading_anything_heavy() -> None:
    code = (
        "import sys\n"
        "from mixup_hf.inverter.engines import check_engine\n"
        "for spec in ('auto', 'fast', 'transformers', 'vllm:http://host:8000'):\n"
        "    check_engine(spec)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("spec", ["slow", "", "vllm", "vllm:host:8000", "fast:now"])
def test_what_is_not_an_engine_is_refused(spec: str) -> None:
    with pytest.raises(InvalidInput, match="`engine` must"):
        check_engine(spec)


def test_an_unknown_name_is_answered_with_how_engines_are_written() -> None:
    with pytest.raises(
        InvalidInput, match="'auto', 'fast', 'transformers', 'vllm:http://host:8000'"
    ):
        check_engine("slow")


@pytest.fixture
def toy() -> Iterator[None]:
    """An engine of another package, in one class."""

    class ToyWriter:
        name = "toy:1"

        def write(self, prompts: Any, settings: Any, streams: Any) -> list[str]:
            return ["toy"] * len(prompts)

    @registry.register("engine", "toy", help="always the same sentence", usage="toy:NUMBER")
    class Toy(EngineChoice):
        def check(self, argument: str) -> None:
            if not argument.isdigit():
                raise InvalidInput("`engine` must be toy:NUMBER")

        def writer(self, argument: str, parts: DecodingParts) -> Writer:
            return ToyWriter()

    yield
    registry.unregister("engine", "toy")


@pytest.mark.usefixtures("toy")
def test_a_new_engine_is_one_class() -> None:
    check_engine("toy:1")
    with pytest.raises(InvalidInput, match="toy:NUMBER"):
        check_engine("toy")
    assert "toy:NUMBER (always the same sentence)" in registry.choices("engine")
    tiny = make_inverter()
    inverter = Inverter(make_encoder(), tiny.aligner, make_llm(), tiny.tokenizer, engine="toy:1")
    assert inverter.engine == "toy:1"
    assert inverter.invert(torch.randn(2, 16)) == ["toy", "toy"]
    with pytest.raises(InvalidInput, match="run in this process"):
        make_engine(make_llm(), "toy:1")


def test_decoding_uses_the_name_the_llm_has_for_its_cache() -> None:
    class Older:
        def forward(self, inputs_embeds: Any, past_key_values: Any) -> None: ...

    class Newer:
        def forward(self, inputs_embeds: Any, cache: Any) -> None: ...

    assert cache_argument(Older()) == "past_key_values"
    assert cache_argument(Newer()) == "cache"


def test_decoding_with_transformers_warns_of_nothing() -> None:
    engine = make_engine(make_llm(), "transformers")
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("error")
        batch = engine.decoding(2, 6)
        batch.start(torch.randn(2, 3, 32))
        batch.step(torch.tensor([1, 2]))
