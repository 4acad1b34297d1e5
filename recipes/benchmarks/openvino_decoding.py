"""OpenVINO against our own loop: the same sentences, decoded on a CPU.

    pip install openvino nncf
    python recipes/benchmarks/openvino_decoding.py --output openvino.json

OpenVINO runs as an `Engine`, so sampling, the dropping of ended rows and two batches side by side
are the same code for both. First it is checked that the graph says what transformers says, and how
far rounding takes each engine from it. Then every round runs every case once, in turn, so that a
noisy machine slows all of them; ratios are taken within a round, medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nncf
import openvino as ov
import torch
from openvino_llm import Graphs
from speed_decoding import MAX_NEW_TOKENS, REFERENCE, generate
from speed_setup import headlines
from torch import Tensor

from mixup_hf import Inverter
from mixup_hf.inverter.engines import make_engine
from mixup_hf.inverter.engines.base import DecodeSettings, Engine
from mixup_hf.inverter.prompt import end_ids
from mixup_hf.inverter.sampling import LocalWriter, decode

GREEDY = DecodeSettings(max_new_tokens=MAX_NEW_TOKENS, temperature=0.0)
OURS = "fast, bfloat16, batch 256"
# Sentences of the reference in a round: it is slow, and its batches are all alike.
_REFERENCE_SENTENCES = 64
# What OpenVINO computes in. It keeps keys and values in 8 bits unless told otherwise, and with
# 8-bit weights rounds what goes into a product to 8 bits too: its defaults stay as they are.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
_BF16 = {"INFERENCE_PRECISION_HINT": "bf16"}


def main() -> None:
    """Check, measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=512, help="of a case in a round")
    parser.add_argument("--rows", type=int, default=64, help="of the checks")
    parser.add_argument("--tokens", type=int, default=12, help="of a row of the checks")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", nargs="*", help="beside the first two; default: all")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    inverter = Inverter.from_pretrained(engine="transformers", dtype=torch.float32)
    graphs = Graphs(inverter.llm)
    found: dict[str, Any] = {"openvino": ov.__version__, "nncf": nncf.__version__}
    found["checks"] = checks(inverter, graphs, options.rows, options.tokens)
    if options.rounds:
        cases = make_cases(inverter, graphs, options.streams)
        if options.cases is not None:
            cases = {name: cases[name] for name in (REFERENCE, OURS, *options.cases)}
        found["speed"] = speed(inverter, cases, options.rounds, options.sentences)
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n")


def mixes(inverter: Inverter, count: int) -> Tensor:
    """Embeddings (count, D) between those of two headlines each."""
    texts, _ = headlines()
    if 2 * count > len(texts):
        raise SystemExit(f"`--sentences` must be at most {len(texts) // 2}, but got {count}.")
    ends = inverter.encode(texts[: 2 * count])
    lams = torch.rand(count, 1, generator=torch.Generator().manual_seed(0))
    return torch.lerp(ends[:count], ends[count:], lams)


@torch.inference_mode()
def checks(inverter: Inverter, graphs: Graphs, count: int, length: int) -> dict[str, Any]:
    """Whether the graph is right, and how far each engine's distributions are from float32's."""
    llm = inverter.llm
    prompts = inverter.prompt(mixes(inverter, count))
    ends = end_ids(inverter.tokenizer, llm)
    exact = make_engine(llm, "transformers")
    same = graphs.engine("float32", _EXACT)
    expected, given = (
        decode(engine, prompts[:16], end_ids=ends, settings=GREEDY) for engine in (exact, same)
    )
    equal = statistics.mean(float(one == other) for one, other in zip(expected, given, strict=True))
    print(f"The float32 graph decodes {equal:.0%} of {len(given)} rows as transformers does.\n")
    rows = decode(exact, prompts, end_ids=ends, settings=GREEDY)
    tokens = torch.tensor([(row + [ends[0]] * length)[:length] for row in rows])
    reference = next_token_log_probabilities(exact, prompts, tokens)
    real = torch.arange(length + 1)[:, None] <= torch.tensor([len(row) for row in rows])
    print("| engine | KL, nats | first tokens equal | all tokens equal |\n|---|---|---|---|")
    figures = {}
    for name, engine in (
        (same.name, same),
        ("fast:bfloat16", make_engine(llm, "fast", torch.bfloat16)),
        ("openvino:bfloat16", graphs.engine("bfloat16", _BF16)),
        ("openvino:int8", graphs.engine("int8", _BF16)),
    ):
        found = next_token_log_probabilities(engine, prompts, tokens)
        agree = (reference.argmax(-1) == found.argmax(-1)).float()
        kl = float((reference.exp() * (reference - found)).sum(-1)[real].mean())
        first, every = float(agree[0].mean()), float(agree[real].mean())
        figures[name] = {"kl": kl, "first": first, "all": every}
        print(f"| {name} | {kl:.5f} | {first:.1%} | {every:.1%} |", flush=True)
    print()
    return {"rows_equal_in_float32": equal, "engines": figures}


def next_token_log_probabilities(engine: Engine, prompts: Tensor, tokens: Tensor) -> Tensor:
    """After the prompt and after each of `tokens` (B, T): (T + 1, B, V)."""
    batch = engine.decoding(len(prompts), prompts.shape[1] + tokens.shape[1])
    found = [batch.start(prompts).float().log_softmax(-1)]
    found += [batch.step(column).float().log_softmax(-1) for column in tokens.T]
    return torch.stack(found)


def make_cases(
    inverter: Inverter, graphs: Graphs, streams: Sequence[int]
) -> dict[str, Callable[[Tensor], list[str]]]:
    """What decodes embeddings, by name."""
    fast = make_engine(inverter.llm, "fast", torch.bfloat16)
    cases: dict[str, Callable[[Tensor], list[str]]] = {
        REFERENCE: lambda rows: generate(inverter, rows[:_REFERENCE_SENTENCES], 16)
    }
    for batch in (64, 256, 512):
        cases[f"fast, bfloat16, batch {batch}"] = _case(inverter, fast, batch)
    for weights, batches in (("int8", (64, 256, 512)), ("bfloat16", (256, 512))):
        for count in streams:
            engine = graphs.engine(weights, _BF16, count)
            for batch in batches:
                name = f"OpenVINO, {weights}, batch {batch}, streams {count}"
                cases[name] = _case(inverter, engine, batch)
    return cases


def _case(inverter: Inverter, engine: Engine, batch: int) -> Callable[[Tensor], list[str]]:
    writer = LocalWriter(engine, inverter.tokenizer, end_ids(inverter.tokenizer, inverter.llm))

    @torch.inference_mode()
    def write(embeddings: Tensor) -> list[str]:
        found: list[str] = []
        for rows in embeddings.split(batch):
            found += writer.write(inverter.prompt(rows), GREEDY, [()] * len(rows))
        return found

    return write


def speed(
    inverter: Inverter,
    cases: dict[str, Callable[[Tensor], list[str]]],
    rounds: int,
    count: int,
) -> dict[str, Any]:
    """Sentences a second of each case, and against the reference and our loop in the same round."""
    embeddings = mixes(inverter, count)
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            started = time.perf_counter()
            sentences = case(embeddings)
            rates[name].append(len(sentences) / (time.perf_counter() - started))
    print(f"| case | sentences/s | against the first | against {OURS} |\n|---|---|---|---|")
    rows = {}
    for name, own in rates.items():
        median = statistics.median(own)
        first, ours = (_ratio(own, rates[base]) for base in (REFERENCE, OURS))
        rows[name] = {"sentences_per_second": own, "ratio": first, "ratio_to_ours": ours}
        print(f"| {name} | {median:.1f} | {first:.2f} | {ours:.2f} |", flush=True)
    return rows


def _ratio(own: list[float], base: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(own, base, strict=True))


if __name__ == "__main__":
    main()
