"""How fast sentences are decoded, where the time goes, and what a row costs beside that."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from speed_setup import headlines

from mixup_hf import InversedMixup, Inverter, MixupConfig

MAX_NEW_TOKENS = 40
REFERENCE = "generate, float32, batch 16"


def decoding(rounds: int, count: int, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Sentences a second, by engine, type and batch size; of the cases `only`, if given."""
    exact = Inverter.from_pretrained(engine="transformers", dtype=torch.float32)
    cases = make_cases(exact)
    texts, _ = headlines()
    most = max(count, 512)
    ends = exact.encode(texts[: 2 * most])
    lams = torch.rand(most, 1, generator=torch.Generator().manual_seed(0))
    mixes = torch.lerp(ends[:most], ends[most : 2 * most], lams)
    cases = {name: cases[name] for name in only or cases}
    names = [REFERENCE, *cases]
    seconds: dict[str, list[float]] = {name: [] for name in names}  # of one sentence
    flops: dict[str, float] = {}  # of one sentence
    for _ in range(rounds):
        for name in names:
            started = time.perf_counter()
            if name == REFERENCE:
                sentences = generate(exact, mixes[:count], 16)
            else:
                inverter, batch = cases[name]
                sentences = invert(inverter, mixes[: max(count, batch)], batch)
            seconds[name].append((time.perf_counter() - started) / len(sentences))
            flops[name] = needed_flops(exact, sentences) / len(sentences)
    return print_rates(seconds, flops)


def make_cases(exact: Inverter) -> dict[str, tuple[Inverter, int]]:
    """By name, what decodes and its batch size; `exact` is transformers' engine in float32."""
    fast = {
        dtype: Inverter.from_pretrained(engine="fast", dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }
    return {
        "transformers, float32, batch 16": (exact, 16),
        "transformers, float32, batch 64": (exact, 64),
        "fast, float32, batch 64": (fast[torch.float32], 64),
        "fast, float32, batch 256": (fast[torch.float32], 256),
        "fast, bfloat16, batch 16": (fast[torch.bfloat16], 16),
        "fast, bfloat16, batch 64": (fast[torch.bfloat16], 64),
        "fast, bfloat16, batch 256": (fast[torch.bfloat16], 256),
        "fast, bfloat16, batch 512": (fast[torch.bfloat16], 512),
    }


def print_rates(seconds: dict[str, list[float]], flops: dict[str, float]) -> dict[str, Any]:
    """Print the table of `decoding`, and return its rows.

    Args:
        seconds: Of one sentence in every round, by case; `REFERENCE` among them.
        flops: Needed for one sentence, by case.
    """
    rates = {dtype: gemm_rate(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print("| case | sentences/s | against the first | share of the GEMM rate |\n|---|---|---|---|")
    rows = {}
    for name, each in seconds.items():
        ratio = statistics.median(
            base / own for base, own in zip(seconds[REFERENCE], each, strict=True)
        )
        rate = rates[torch.bfloat16 if "bfloat16" in name else torch.float32]
        median = statistics.median(each)
        rows[name] = {
            "sentences_per_second": 1 / median,
            "ratio": ratio,
            "gemm_share": flops[name] / median / rate,
        }
        print(
            f"| {name} | {1 / median:.1f} | {ratio:.2f} | {flops[name] / median / rate:.0%} |",
            flush=True,
        )
    print(f"\nGEMM rates: {', '.join(f'{k}: {v / 1e9:.0f} GFLOP/s' for k, v in rates.items())}\n")
    return rows


def profile(count: int = 128) -> dict[str, float]:
    """Where the fast engine's time goes: shares of the operations, one batch on one thread."""
    inverter = Inverter.from_pretrained(engine="fast")
    ends = inverter.encode(headlines()[0][: 2 * count])
    mixes = torch.lerp(ends[:count], ends[count:], 0.5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    invert(inverter, mixes, count)  # memory and kernels are there from here on
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        invert(inverter, mixes, count)
    torch.set_num_threads(threads)
    spent = {each.key: each.self_cpu_time_total for each in found.key_averages()}
    largest = sorted(spent, key=lambda name: -spent[name])[:8]
    shares = {name: spent[name] / sum(spent.values()) for name in largest}
    print("| operation | share of the time |\n|---|---|")
    for name, share in shares.items():
        print(f"| `{name}` | {share:.0%} |")
    print()
    return shares


def invert(inverter: Inverter, mixes: torch.Tensor, batch: int) -> list[str]:
    """Decode greedily with our loop."""
    return inverter.invert(
        mixes,
        batch_size=batch,
        temperature=0.0,
        max_new_tokens=MAX_NEW_TOKENS,
        progress=False,
    )


@torch.inference_mode()
def generate(inverter: Inverter, mixes: torch.Tensor, batch: int) -> list[str]:
    """Decode greedily with transformers' own `generate`."""
    sentences: list[str] = []
    for rows in mixes.split(batch):
        tokens = inverter.llm.generate(
            inputs_embeds=inverter.prompt(rows),
            attention_mask=torch.ones(len(rows), inverter.prompt.length, dtype=torch.long),
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=inverter.tokenizer.eos_token_id,
        )
        sentences += inverter.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return sentences


def needed_flops(inverter: Inverter, sentences: list[str]) -> float:
    """Of all products with weights; the head only where a token is made."""
    head = inverter.llm.get_output_embeddings().weight.numel()
    table = inverter.llm.get_input_embeddings().weight
    layers = sum(value.numel() for value in inverter.llm.parameters()) - table.numel()
    if inverter.llm.get_output_embeddings().weight is not table:
        layers -= head
    lengths = [len(ids) + 1 for ids in inverter.tokenizer(sentences)["input_ids"]]
    positions = sum(inverter.prompt.length + length - 1 for length in lengths)
    return 2.0 * (layers * positions + head * sum(lengths))


def gemm_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP/s of a large product, the best of ten."""
    one, two = (torch.randn(size, size).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        one @ two
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def rows_without_decoding() -> dict[str, float]:
    """Milliseconds a row of everything but the LLM's work, by the number of rows."""
    texts, labels = headlines()
    config = MixupConfig(label_source="parents", reuse=False)  # judged, and not labelled
    mixup = InversedMixup.from_pretrained(texts=texts, labels=labels, config=config)

    def say_something(mixes: torch.Tensor, seed: Sequence[int]) -> list[str]:
        return [texts[(sum(seed) + row) % len(texts)] for row in range(len(mixes))]

    mixup.producer.invert = say_something
    next(mixup.stream(1))  # parents are embedded, judges made
    found = {}
    for rows in (1_000, 10_000):
        took = []
        started = time.perf_counter()
        for chunk in mixup.stream(rows):
            took.append((time.perf_counter() - started) / len(chunk))
            started = time.perf_counter()
        found[str(rows)] = 1e3 * statistics.median(took)
    shown = ", ".join(f"{float(value):.2f} ms at {name} rows" for name, value in found.items())
    print(f"A row costs, without its decoding: {shown}.\n")
    return found
