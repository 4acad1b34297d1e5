"""Several GPUs, of which there is none here: every process keeps to its own.

A recorder takes whatever is sent to a GPU, notes which one, and leaves it on the CPU, so that
everything runs. What names no device would land on the current one, which is noted as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import PartialState
from tiny import make_producer, make_rows
from torch.overrides import TorchFunctionMode

from mixup_hf import InversedMixup, Inverter, runtime
from mixup_hf.config import MixupConfig
from mixup_hf.generation.background import BackgroundProducer, Chunk
from mixup_hf.inverter import quantization

OWN = torch.device("cuda:2")


class Recorder(TorchFunctionMode):
    """Notes the GPUs that tensors are sent to or made on, and leaves them on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.device] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.device:  # a name, and no tensor yet
            return func(*args, **(kwargs or {}))
        kept = {name: self._on_the_cpu(value) for name, value in (kwargs or {}).items()}
        return func(*map(self._on_the_cpu, args), **kept)

    def _on_the_cpu(self, value: Any) -> Any:
        if isinstance(value, torch.device) or (isinstance(value, str) and value[:4] == "cuda"):
            device = torch.device(value)
            if device.type == "cuda":
                self.seen.append(device)
                return torch.device("cpu")
        return value


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Four GPUs in the process of local rank 2, as launched: no state of accelerate's yet.

    Returns:
        The GPUs that have been made the current one.
    """
    entered: list[torch.device] = []

    @contextmanager
    def device(chosen: torch.device) -> Iterator[None]:
        entered.append(chosen)
        yield

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "2")
    return entered


@pytest.mark.parametrize(
    ("given", "expected"), [(None, OWN), ("cuda", OWN), ("cuda:1", torch.device("cuda:1"))]
)
def test_an_inverter_is_loaded_onto_the_ranks_own_gpu_before_there_is_any_state(
    given: str | None,
    expected: torch.device,
    current: list[torch.device],
    saved_aligner: Callable[..., Path],
) -> None:
    folder = saved_aligner(lora=True)
    with Recorder() as recorder:
        Inverter.from_pretrained(folder, quantization="none", device=given)
    assert set(recorder.seen) == {expected}
    assert set(current) == {expected}  # nothing without a device lands on the first GPU either
    assert PartialState._shared_state == {}  # TrainingArguments decides on that, later


@pytest.mark.usefixtures("current")
def test_weights_in_four_bits_and_their_lora_go_there_too(
    saved_aligner: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by default on a GPU; bitsandbytes' kernels are not run."""
    import peft

    asked: dict[str, Any] = {}
    load, adapt = quantization.AutoModelForCausalLM.from_pretrained, peft.PeftModel.from_pretrained

    def load_llm(path: Any, *, device_map: Any, quantization_config: Any, **settings: Any) -> Any:
        asked["llm"] = device_map
        llm, info = load(path, **settings)
        moved = SimpleNamespace(weight=SimpleNamespace(device=OWN, shape=(1, 32)))
        monkeypatch.setattr(llm, "get_input_embeddings", lambda: moved)
        return llm, info

    def load_lora(llm: Any, path: str, **settings: Any) -> Any:
        asked["lora"] = settings.get("torch_device")
        monkeypatch.undo()  # the models are on the CPU in truth
        return adapt(llm, path, **(settings | {"torch_device": "cpu"}))

    monkeypatch.setattr(quantization.AutoModelForCausalLM, "from_pretrained", load_llm)
    monkeypatch.setattr(peft.PeftModel, "from_pretrained", load_lora)
    with Recorder() as recorder:
        Inverter.from_pretrained(saved_aligner(lora=True))
    assert asked == {"llm": {"": OWN}, "lora": "cuda:2"}
    assert set(recorder.seen) == {OWN}


def test_a_gpu_that_was_named_is_used() -> None:
    assert runtime.device_of("cuda:1") == torch.device("cuda:1")
    assert runtime.device_of("cpu") == torch.device("cpu")


def test_whether_a_gpu_knows_bf16_is_asked_of_that_gpu(current: list[torch.device]) -> None:
    assert quantization.default_dtype(OWN) == torch.bfloat16
    assert current == [OWN]


def test_the_background_thread_works_on_the_gpu_of_the_thread_that_started_it(
    current: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    threads: list[str] = []
    producer = make_producer()
    make = producer.chunk
    monkeypatch.setattr(
        producer,
        "chunk",
        lambda *chunk: threads.append(threading.current_thread().name) or make(*chunk),
    )
    background = BackgroundProducer(producer)
    background.start([Chunk(0, 0, 4)])
    background.take(Chunk(0, 0, 4))
    assert threads == ["mixup_hf-background"] and current == [OWN]


def test_a_whole_run_asks_for_no_other_gpu(
    current: list[torch.device],
    saved_aligner: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts, labels = make_rows(24)
    config = MixupConfig(
        aligner=str(saved_aligner(lora=True)),
        quantization="none",
        label_source="committee",
        max_new_tokens=4,
        leaks="off",
    )
    for name, answer in (("world_size", 1), ("rank", 0), ("is_main_process", True)):
        monkeypatch.setattr(runtime, name, lambda answer=answer: answer)
    with Recorder() as recorder:
        mixup = InversedMixup.from_pretrained(texts=texts, labels=labels, config=config)
        mixup.generate(4)
    assert set(recorder.seen) == {OWN} and set(current) == {OWN}
