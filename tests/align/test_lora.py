"""An aligner that training starts from keeps its own LoRA: its rank, its scale, its layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import make_llm, with_random_lora

from mixup_hf import AlignConfig
from mixup_hf.align.lora import load_lora, with_lora
from mixup_hf.inverter.lora import AlignerMismatchError


def config(**settings: Any) -> AlignConfig:
    return AlignConfig(data="x", output_dir="y", start_from="embedded", bf16=False, **settings)


@pytest.fixture
def start(tmp_path: Path) -> tuple[Any, Path]:
    """An LLM with a LoRA of rank 2 and alpha 8, and the folder of its checkpoint."""
    llm = with_random_lora(make_llm())
    llm.save_pretrained(tmp_path / "start" / "lora")
    return llm, tmp_path / "start"


def logits(llm: Any) -> torch.Tensor:
    inputs = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: torch.Tensor = llm.eval()(inputs_embeds=inputs).logits
    return found


def test_the_llm_decodes_as_it_did_before(start: tuple[Any, Path]) -> None:
    before, folder = start
    llm = with_lora(make_llm(), config(), folder)  # nothing is set: the LoRA's own rank and alpha
    load_lora(llm, folder)
    torch.testing.assert_close(logits(llm), logits(before))
    assert llm.peft_config["default"].lora_alpha == before.peft_config["default"].lora_alpha
    assert any(parameter.requires_grad for parameter in llm.parameters())


@pytest.mark.parametrize("settings", [{"lora_r": 16}, {"lora_alpha": 32}, {"lora_layers": 0.5}])
def test_another_lora_is_refused(start: tuple[Any, Path], settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must be left out with `start_from`"):
        with_lora(make_llm(), config(**settings), start[1])


def test_a_lora_that_does_not_fit_is_refused(start: tuple[Any, Path]) -> None:
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    with pytest.raises(AlignerMismatchError, match="does not belong to this LoRA"):
        load_lora(get_peft_model(make_llm(), lora), start[1])
