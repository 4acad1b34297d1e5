"""Any encoder with any causal LM: tiny random models of each architecture, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SPECIAL, WORDS, make_rows, word_tokenizer
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    Qwen2Config,
    XLMRobertaConfig,
)

from mixup_hf import AlignConfig, Inverter
from mixup_hf.align import align
from mixup_hf.config import StageConfig
from mixup_hf.inverter.aligner import Aligner, AlignerConfig
from mixup_hf.inverter.objective import AlignmentModel
from mixup_hf.inverter.prompt import SoftPrompt, input_rms, prompt_texts

VOCABULARY = len(SPECIAL) + len(WORDS)
EOS = SPECIAL.index("<eos>")
LLM: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "eos_token_id": EOS,
    "pad_token_id": 0,
    "bos_token_id": 2,
}
LLMS = {
    "llama": LlamaConfig(**LLM),
    "qwen2": Qwen2Config(**LLM, tie_word_embeddings=True),
    "mistral": MistralConfig(**LLM),
    "gemma": GemmaConfig(**LLM),
    "gemma2": Gemma2Config(**LLM, final_logit_softcapping=0.5, query_pre_attn_scalar=16),
}
ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
ENCODERS = {
    "bert": BertConfig(**ENCODER),
    "xlm-roberta": XLMRobertaConfig(**ENCODER),
    "modernbert": ModernBertConfig(
        **ENCODER, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3
    ),
}
SETTINGS = {"bert": {"pooling": "cls"}, "xlm-roberta": {"encoder_prefix": "what is the "}}


def make_llm(name: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LLMS[name]).eval()


def save_pair(folder: Path, encoder: str, llm: str) -> dict[str, str]:
    torch.manual_seed(0)
    AutoModel.from_config(ENCODERS[encoder]).save_pretrained(folder / "encoder")
    word_tokenizer(classifier=True).save_pretrained(folder / "encoder")
    make_llm(llm).save_pretrained(folder / "llm")
    word_tokenizer(classifier=False).save_pretrained(folder / "llm")
    (folder / "sentences.txt").write_text("\n".join(make_rows(60)[0]))
    return {
        "encoder": str(folder / "encoder"),
        "llm": str(folder / "llm"),
        "data": str(folder / "sentences.txt"),
    }


PAIRS = [("bert", name) for name in LLMS] + [(name, "llama") for name in list(ENCODERS)[1:]]


@pytest.mark.parametrize(("encoder", "llm"), PAIRS)
def test_every_pair_trains_saves_loads_and_decodes(tmp_path: Path, encoder: str, llm: str) -> None:
    steps: dict[str, Any] = {"max_steps": 2, "warmup_steps": 0}
    config = AlignConfig(
        **save_pair(tmp_path, encoder, llm),
        **SETTINGS.get(encoder, {}),  # type: ignore[arg-type]
        output_dir=str(tmp_path / "run"),
        max_sentences=40,
        lexicon_sentences=30,
        lexicon_common=1,
        lexicon_width=8,
        lexicon_rank=4,
        num_hints=1,
        min_words=2,
        holdout=4,
        eval_sentences=2,
        batch_tokens=128,
        projector_width=8,
        num_soft_tokens=2,
        lora_r=2,
        base_grid=None,
        use_cpu=True,
        ratio_pairs=0,
        stages=(
            StageConfig(name="0", train_lexicon=True, train_projector=False, **steps),
            StageConfig(name="1", train_lora=True, **steps),
        ),
    )
    inverter = Inverter.from_pretrained(align(config), device="cpu", quantization="none")
    assert inverter.encoder.prefix == config.encoder_prefix
    embeddings = inverter.encode(["the red market", "old song"])
    assert len(inverter.invert(embeddings, temperature=0.0, max_new_tokens=4)) == 2


def make_model(name: str) -> tuple[AlignmentModel, Any]:
    llm = make_llm(name).requires_grad_(False)
    config = AlignerConfig(
        embedding_dim=16, llm_dim=32, projector_width=8, embedding_rms=input_rms(llm)
    )
    prompt = SoftPrompt.build(Aligner(config), llm, word_tokenizer(classifier=False))
    return AlignmentModel(prompt, llm), llm


@pytest.mark.parametrize("name", LLMS)
def test_the_loss_and_its_gradient_are_those_of_the_llms_own_logits(name: str) -> None:
    model, llm = make_model(name)
    embeddings, ids = torch.randn(3, 16), torch.randint(6, VOCABULARY, (3, 5))
    labels = F.pad(ids, (0, 1), value=EOS)
    ours = model(embeddings, ids, labels)["loss"]
    prompts = model.prompt(embeddings)
    inputs = torch.cat([prompts, llm.get_input_embeddings()(ids)], dim=1)
    logits = llm(inputs_embeds=inputs).logits[:, prompts.shape[1] - 1 :]
    theirs = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(ours, theirs)
    weights = list(model.prompt.projector.parameters())
    for one, other in zip(
        torch.autograd.grad(ours, weights), torch.autograd.grad(theirs, weights), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", LLMS)
def test_soft_tokens_have_the_size_the_layers_see(name: str) -> None:
    model, llm = make_model(name)
    tokens = llm.get_input_embeddings()(torch.arange(VOCABULARY))
    soft = model.prompt(torch.randn(4, 16))
    assert float(soft.square().mean().sqrt()) == pytest.approx(
        float(tokens.square().mean().sqrt()), rel=0.01
    )


def test_an_llm_that_scales_its_logits_is_refused() -> None:
    llm = make_llm("llama")

    class Scaled(torch.nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return super().forward(states) * 3

    llm.lm_head.__class__ = Scaled
    config = AlignerConfig(embedding_dim=16, llm_dim=32, projector_width=8)
    prompt = SoftPrompt.build(Aligner(config), llm, word_tokenizer(classifier=False))
    with pytest.raises(ValueError, match="LlamaForCausalLM computes them differently"):
        AlignmentModel(prompt, llm)


CHAT = (
    "{% for m in messages %}<u>{{ m['content'] }}</u>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


def test_the_prompt_can_be_a_turn_of_the_chat_template() -> None:
    tokenizer = word_tokenizer(classifier=False)
    with pytest.raises(ValueError, match="`prompt_chat` needs an LLM with a chat template"):
        prompt_texts(tokenizer, "", "", chat=True)
    tokenizer.chat_template = CHAT
    found = prompt_texts(tokenizer, "what is ", " in the film", chat=True)
    assert found == ("<u>what is ", " in the film</u><a>")


def test_a_tokenizer_that_opens_every_text_opens_the_prompt() -> None:
    tokenizer = word_tokenizer(classifier=True)
    tokenizer.bos_token = "[CLS]"
    assert prompt_texts(tokenizer, "the", "", chat=False) == ("[CLS]the", "")
    assert prompt_texts(tokenizer, "[CLS]the", "", chat=False) == ("[CLS]the", "")
    plain = word_tokenizer(classifier=False)
    assert prompt_texts(plain, "the", "film", chat=False) == ("the", "film")
