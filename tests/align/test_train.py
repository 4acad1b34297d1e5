"""Alignment end to end on tiny models: it learns, and a killed run goes on where it was."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from aligning import STEPS, make_config, save_partners
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from mixup_hf import Inverter
from mixup_hf.align import stages
from mixup_hf.align.train import align
from mixup_hf.config import StageConfig


@pytest.fixture
def partners(tmp_path: Path) -> dict[str, str]:
    return save_partners(tmp_path)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    lora = load_file(folder / "lora" / "adapter_model.safetensors")
    return load_file(folder / "model.safetensors") | lora


def test_training_makes_an_aligner_that_loads_and_decodes(
    partners: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="mixup_hf")
    folder = align(make_config(partners, tmp_path / "run"))
    losses = [
        float(line.split("loss ")[1].split()[0]) for line in caplog.messages if "nats/token" in line
    ]
    lexicon, generation = losses[:2], losses[2:]
    assert lexicon[-1] < lexicon[0]
    assert generation[-1] < generation[0]
    inverter = Inverter.from_pretrained(folder, device="cpu", quantization="none")
    assert len(inverter.invert(inverter.encode(["the red market"]))) == 1
    card = (folder / "README.md").read_text()
    assert "cosine on 4 held-out" in card
    assert str(partners["llm"]) in card
    trained = weights(folder)
    assert any(value.abs().sum() > 0 for name, value in trained.items() if "lora_B" in name)


def test_a_killed_run_goes_on_to_the_same_weights(
    partners: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = weights(align(make_config(partners, tmp_path / "whole")))
    config = make_config(partners, tmp_path / "killed")

    class Killed(Exception):
        pass

    real = stages.StageClock.on_step_end

    def kill(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        real(self, args, state, control, **kwargs)
        if self.stage.name == "b" and state.global_step == 5:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(stages.StageClock, "on_step_end", kill)
        with pytest.raises(Killed):
            align(config)
    resumed = weights(align(config))  # stage a is finished, stage b goes on from step 3
    assert resumed.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(resumed[name], value, msg=name)


def test_a_stage_ends_when_its_time_is_up(partners: dict[str, str], tmp_path: Path) -> None:
    stage = StageConfig(name="a", max_steps=100_000, minutes=0.02, warmup_steps=0)
    config = make_config(
        partners, tmp_path / "run", stages=(stage,), num_hints=0, eval_steps=100_000
    )
    started = time.monotonic()
    align(config)
    assert time.monotonic() - started < 30  # 1.2 seconds of training, and the loading
    steps = json.loads((tmp_path / "run" / "a" / "finished.json").read_text())["steps"]
    assert 0 < steps < 5_000


def test_a_stage_ends_after_its_passes_over_the_sentences(
    partners: dict[str, str], tmp_path: Path
) -> None:
    stage = StageConfig(name="a", max_epochs=1.5, warmup_steps=0)
    config = make_config(partners, tmp_path / "run", stages=(stage,), num_hints=0)
    align(config)
    folder = tmp_path / "run" / "a"
    states = sorted(folder.glob("checkpoint-*/trainer_state.json"))
    steps = json.loads((folder / "finished.json").read_text())["steps"]
    history = json.loads(states[-1].read_text())["log_history"]
    of_an_epoch = history[0]["step"] / history[0]["epoch"]
    assert steps == math.ceil(1.5 * of_an_epoch) > of_an_epoch


def test_the_clock_stops_at_its_time_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = stages.StageClock(1.0, StageConfig(name="a", max_steps=1_000))
    now = [100.0]
    monkeypatch.setattr(stages.time, "monotonic", lambda: now[0])
    args: Any = SimpleNamespace(output_dir="nowhere")
    state, control = TrainerState(), TrainerControl()
    clock.on_train_begin(args, state, control)
    for now[0], stopped in ((159.0, False), (160.0, True)):
        clock.on_step_end(args, state, control)
        assert control.should_training_stop is stopped


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    clock = stages.StageClock(1.0, StageConfig(name="a", warmup_steps=4, decay_share=0.5))
    assert clock.rate_factor(0) == pytest.approx(0.2)
    assert clock.rate_factor(10) == 1.0
    clock.progress = 0.75
    assert clock.rate_factor(10) == pytest.approx(0.5)
    clock.progress = 1.0
    assert clock.rate_factor(10) == 0.0


def test_a_checkpoint_that_was_not_saved_to_its_end_is_not_resumed_from(
    partners: dict[str, str], tmp_path: Path
) -> None:
    """Its weights used to be trained on from step 0, which gave another aligner in silence."""
    whole = align(make_config(partners, tmp_path / "whole"))
    run = make_config(partners, tmp_path / "killed")
    align(run)
    shutil.rmtree(tmp_path / "killed" / "aligner")
    (tmp_path / "killed" / "b" / "finished.json").unlink()
    # As a kill leaves it: none, half of it, not yet what our callback adds, or after all that.
    spoilt = ("trainer_state.json", ""), ("trainer_state.json", "{"), ("stage_clock.json", ""), None
    for each in spoilt:
        for last in (tmp_path / "killed" / "b").glob("checkpoint-*"):
            if each is not None:
                (last / each[0]).write_text(each[1])
        again = align(run)
        for name in ("model.safetensors", "lora/adapter_model.safetensors"):
            assert (again / name).read_bytes() == (whole / name).read_bytes()
        (tmp_path / "killed" / "b" / "finished.json").unlink()


def test_base_weights_stay_as_they_were(partners: dict[str, str], tmp_path: Path) -> None:
    before = load_file(Path(partners["llm"]) / "model.safetensors")
    align(make_config(partners, tmp_path / "run"))
    after = load_file(Path(partners["llm"]) / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_lora_learns_on_a_4bit_llm_at_least_half_of_what_it_learns_on_a_plain_one(
    partners: dict[str, str], tmp_path: Path
) -> None:
    """The LoRA alone lowers the held-out loss: wrong gradients through 4-bit weights would not."""
    loras = StageConfig(
        name="b", max_steps=STEPS, train_projector=False, train_lora=True, lora_lr=0.01
    )
    settings = {"stages": (StageConfig(name="a", max_steps=1), loras), "num_hints": 0, "bf16": True}
    gained = {}
    for kind in ("4bit", "none"):
        align(make_config(partners, tmp_path / kind, quantization=kind, **settings))
        finished = [tmp_path / kind / name / "finished.json" for name in ("a", "b")]
        before, after = (json.loads(file.read_text())["loss"] for file in finished)
        gained[kind] = before - after
    assert gained["none"] > 0
    assert gained["4bit"] > 0.5 * gained["none"], gained


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_is_for_devices_that_are_fast_in_it_unless_a_config_says_otherwise(
    partners: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    monkeypatch.setattr("mixup_hf.align.session.bf16_is_fast", lambda device: fast)
    stages = (StageConfig(name="a", max_steps=1),)
    settings = {"stages": stages, "num_hints": 0, "bf16": None}
    align(make_config(partners, tmp_path / "run", **settings))
    used = json.loads((tmp_path / "run" / "a" / "settings.json").read_text())
    assert used["bf16"] is fast  # what a later run must agree with, and not `null`
