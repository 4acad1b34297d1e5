from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import make_llm

from mixup_hf.inverter import lora
from mixup_hf.inverter.lora import load_lora, lora_state, save_lora


def save(folder: Path, **settings: Any) -> None:
    """A LoRA that changes the weights, as an aligner checkpoint holds it."""
    torch.manual_seed(0)
    config = LoraConfig(**({"r": 3, "lora_alpha": 7, "target_modules": "all-linear"} | settings))
    model = get_peft_model(make_llm(), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    save_lora(folder / "lora", model, lora_state(model, torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"target_modules": ["q_proj"]}])
def test_a_merge_without_peft_gives_the_weights_peft_gives(
    settings: dict[str, Any], dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, **settings)
    expected = PeftModel.from_pretrained(make_llm().to(dtype), str(tmp_path / "lora"))
    expected = expected.merge_and_unload().state_dict()
    monkeypatch.setattr(PeftModel, "from_pretrained", None)  # not used
    found = load_lora(make_llm().to(dtype), tmp_path, merge=True).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert not torch.equal(
        found["model.layers.0.self_attn.q_proj.weight"],
        make_llm().to(dtype).state_dict()["model.layers.0.self_attn.q_proj.weight"],
    )


@pytest.mark.parametrize(
    "settings", [{"use_dora": True}, {"rank_pattern": {"q_proj": 2}}, {"bias": "lora_only"}]
)
def test_a_lora_that_is_not_plain_is_left_to_peft(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, **settings)
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert not lora._is_plain(config)
    expected = PeftModel.from_pretrained(make_llm(), str(tmp_path / "lora")).merge_and_unload()
    found = load_lora(make_llm(), tmp_path, merge=True)
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)
