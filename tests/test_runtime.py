from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState

from mixup_hf import runtime


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four CUDA devices and no accelerate state, as in a process that was just launched."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(("rank", "device"), [(None, "cuda:0"), ("2", "cuda:2"), ("5", "cuda:1")])
def test_before_there_is_a_state_the_local_rank_decides(
    rank: str | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert runtime.local_device() == torch.device(device)
    assert PartialState._shared_state == {}  # none was created on the way


@pytest.mark.usefixtures("four_gpus")
def test_accelerates_own_choice_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert runtime.local_device() == torch.device("cpu")
    state = SimpleNamespace(device=torch.device("cuda:3"))
    fake = type("State", (), {"_shared_state": {"device": 1}, "__new__": lambda cls: state})
    monkeypatch.setattr(runtime, "PartialState", fake)
    assert runtime.local_device() == torch.device("cuda:3")


def test_a_later_choice_of_the_cpu_is_not_preempted() -> None:
    code = (
        "from accelerate import PartialState\n"
        "from mixup_hf import runtime\n"
        "runtime.local_device()\n"
        "assert PartialState._shared_state == {}\n"
        "from transformers import TrainingArguments\n"
        "print(TrainingArguments(use_cpu=True).device)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "cpu", result.stderr


@pytest.mark.parametrize(
    ("started", "gpu", "joined"), [("1", False, []), ("2", True, []), ("2", False, [{"cpu": True}])]
)
def test_processes_are_joined_where_accelerate_would_leave_each_alone(
    started: str, gpu: bool, joined: list[dict[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, bool]] = []
    monkeypatch.setattr(runtime, "PartialState", lambda **given: asked.append(given))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    monkeypatch.setenv("WORLD_SIZE", started)
    runtime.join_processes()
    assert asked == joined
