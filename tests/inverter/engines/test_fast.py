from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import make_llm, with_random_lora
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from mixup_hf.inverter.engines import _packed_layers as packed
from mixup_hf.inverter.engines import make_engine
from mixup_hf.inverter.engines.base import Engine

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
PACKABLE = {
    "llama": LlamaConfig(**SIZES),
    "llama with biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "llama 3 positions": LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROPE),
    "one key head": LlamaConfig(**(SIZES | {"num_key_value_heads": 1})),
    "wide heads": LlamaConfig(**SIZES, head_dim=16),
    "tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES),
}


def make(config: Any) -> Any:
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for name, parameter in llm.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.3)
        elif "norm" in name:
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return llm


@torch.inference_mode()
def logits_of_a_batch(engine: Engine, rows: int = 6) -> list[Tensor]:
    """Logits after the prompt, after a token each, after rows have left, after a token more."""
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randn(rows, 5, 32, generator=generator)
    tokens = torch.randint(0, 40, (2, rows), generator=generator)
    kept = torch.tensor([0, 2, 5])
    batch = engine.decoding(rows, 8)
    found = [batch.start(prompts), batch.step(tokens[0])]
    batch.keep(kept)
    return [*found, batch.step(tokens[1, kept])]


@pytest.mark.parametrize("name", PACKABLE)
def test_packed_logits_are_those_of_transformers(name: str) -> None:
    llm = make(PACKABLE[name])
    expected = logits_of_a_batch(make_engine(llm, "transformers"))
    found = logits_of_a_batch(make_engine(llm, "fast", torch.float32))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PACKABLE)
def test_without_packed_products_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a build of torch that has none."""
    monkeypatch.setattr(packed, "packing_works", lambda dtype: False)
    llm = make(PACKABLE[name])
    found = make_engine(llm, "fast", torch.float32)
    for one, other in zip(
        logits_of_a_batch(found), logits_of_a_batch(make_engine(llm, "transformers")), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_bf16_is_as_near_to_float32_as_the_bf16_of_transformers_is() -> None:
    llm = make(PACKABLE["llama"])
    exact = logits_of_a_batch(make_engine(llm, "transformers"))
    fast = logits_of_a_batch(make_engine(llm, "fast", torch.bfloat16))
    rounded = logits_of_a_batch(make_engine(llm.bfloat16(), "transformers"))
    assert divergence(exact, fast) < 1.5 * divergence(exact, rounded) + 1e-3


def divergence(exact: list[Tensor], other: list[Tensor]) -> float:
    """Mean KL divergence of next-token distributions, in nats."""
    return float(
        F.kl_div(
            torch.cat(other).float().log_softmax(-1),
            torch.cat(exact).log_softmax(-1),
            reduction="batchmean",
            log_target=True,
        )
    )


def test_packing_leaves_the_llm_as_it_was() -> None:
    llm = make(PACKABLE["llama"])
    before = {name: value.clone() for name, value in llm.state_dict().items()}
    logits_of_a_batch(make_engine(llm, "fast", torch.bfloat16))
    for name, value in llm.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_check_of_the_packed_products_that_fails_means_plain_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed.packing_works.cache_clear()
    monkeypatch.setattr(packed, "_pack", lambda weight: torch.zeros_like(weight))
    try:
        assert not packed.packing_works(torch.float32)
    finally:
        packed.packing_works.cache_clear()


REFUSED = {
    "gpt2": (GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=40), "its type is 'gpt2'"),
    "gemma2": (Gemma2Config(**SIZES, head_dim=8), "its type is 'gemma2'"),
    "window": (MistralConfig(**SIZES, sliding_window=4), "it attends to a sliding window"),
    "window of qwen": (
        Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1),
        "it attends to a sliding window",
    ),
    "activation": (LlamaConfig(**SIZES, hidden_act="gelu"), "its activation is 'gelu'"),
    "positions": (
        LlamaConfig(
            **SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
        ),
        "its positions are of type 'dynamic'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_packed_is_refused_and_left_to_transformers(name: str) -> None:
    config, reason = REFUSED[name]
    llm = make(config)
    assert make_engine(llm, "auto").name == "transformers:float32"
    with pytest.raises(ValueError, match=f"`engine` = 'fast' cannot run this LLM: {reason}"):
        make_engine(llm, "fast")


def test_a_lora_that_is_not_merged_is_left_to_transformers() -> None:
    wrapped = with_random_lora(make_llm())
    assert make_engine(wrapped, "auto").name == "transformers:float32"
    with pytest.raises(ValueError, match="its LoRA is not merged"):
        make_engine(wrapped, "fast")
    with pytest.raises(ValueError, match="its LoRA is not merged"):
        make_engine(wrapped.get_base_model(), "fast")


def test_an_llm_on_another_device_is_left_to_transformers() -> None:
    llm = make(PACKABLE["llama"]).to("meta")
    assert make_engine(llm, "auto").name == "transformers:float32"
    with pytest.raises(ValueError, match="it is on 'meta', not on a CPU"):
        make_engine(llm, "fast")


def test_an_engine_says_what_it_is() -> None:
    llm = make(PACKABLE["llama"])
    assert make_engine(llm, "fast", torch.float32).name == "fast:float32"
    assert make_engine(llm, "auto", torch.bfloat16).name == "fast:bfloat16"
    assert make_engine(llm, "transformers").name == "transformers:float32"
    with pytest.raises(ValueError, match="`engine` must be one of") as error:
        make_engine(llm, "slow")
    assert all(name in str(error.value) for name in ("auto", "fast", "transformers", "vllm:http"))
