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
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino as ov
import torch
from openvino import opset13 as ops
from openvino._offline_transformations import apply_make_stateful_transformation
from speed import MAX_NEW_TOKENS, REFERENCE, generate, headlines
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from mixup_hf import Inverter
from mixup_hf.inverter.engines import make_engine
from mixup_hf.inverter.engines.base import DecodeSettings, Engine
from mixup_hf.inverter.prompt import end_ids
from mixup_hf.inverter.sampling import LocalWriter, decode

GREEDY = DecodeSettings(max_new_tokens=MAX_NEW_TOKENS, temperature=0.0)
OURS = "fast, bfloat16, batch 256"
# Sentences of the reference in a round: it is slow, and its batches are all alike.
_REFERENCE_SENTENCES = 64
_MOST_ROWS = 256
_STEP = 8
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


class Graphs:
    """An LLM as OpenVINO graphs, each made once.

    Args:
        llm: A causal LM whose LoRA is merged, in float32.
    """

    def __init__(self, llm: Any) -> None:
        self.table = llm.get_input_embeddings().weight
        self.plain = stateful_graph(llm)
        self.int8 = nncf.compress_weights(
            self.plain.clone(), mode=nncf.CompressWeightsMode.INT8_SYM
        )

    def engine(self, weights: str, properties: dict[str, str], streams: int = 1) -> OpenVinoLlm:
        """One of the graphs, compiled; `weights` is `"int8"`, or names those not compressed."""
        graph = self.int8 if weights == "int8" else self.plain
        return OpenVinoLlm(graph, self.table, weights, properties, streams)


class OpenVinoLlm:
    """An LLM that OpenVINO runs on the CPU; an `Engine`.

    Args:
        graph: What `stateful_graph` made.
        table: The input embeddings (V, H).
        weights: How the weights are held; for the name.
        properties: Of the compiled model.
        streams: Batches that run side by side, on their share of the threads each.
    """

    def __init__(
        self,
        graph: ov.Model,
        table: Tensor,
        weights: str,
        properties: dict[str, str],
        streams: int,
    ) -> None:
        self.table = table
        self._weights, self._streams = weights, streams
        threads = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self._compiled = ov.Core().compile_model(graph, "CPU", {**properties, **threads})
        self._requests: list[ov.InferRequest] = []

    @property
    def name(self) -> str:
        """`openvino:WEIGHTS`."""
        return f"openvino:{self._weights}"

    def parts(self, count: int) -> int:
        """One for each stream; of several, more where they would have too many rows."""
        return 1 if self._streams == 1 else max(self._streams, -(-count // _MOST_ROWS))

    def size_for(self, alive: int, size: int) -> int:
        """Those alive, in eights, as our loop has it."""
        return min(size, -(-alive // _STEP) * _STEP)

    def decoding(self, num_rows: int, length: int) -> _OpenVinoDecoding:
        """Begin a batch, in the request of one that has ended if there is any."""
        try:
            request = self._requests.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.reset_state()
        decoding = _OpenVinoDecoding(request, self.table, num_rows)
        weakref.finalize(decoding, self._requests.append, request).atexit = False
        return decoding


class _OpenVinoDecoding:
    def __init__(self, request: ov.InferRequest, table: Tensor, num_rows: int) -> None:
        self._request, self._table = request, table
        self._position = 0
        self._rows = np.arange(num_rows, dtype=np.int32)  # of the state, to be read next

    def start(self, prompts: Tensor) -> Tensor:
        count, new, _ = prompts.shape
        start, end = self._position, self._position + new
        # Of each row its own: in bf16, without AMX, OpenVINO 2026.4 attends wrongly under a mask
        # that all rows share.
        mask = np.triu(np.full((new, end), -np.inf, dtype=np.float32), start + 1)
        inputs = {
            "inputs_embeds": prompts.float().contiguous().numpy(),
            "position_ids": np.arange(start, end)[None],
            "mask": np.repeat(mask[None, None], count, axis=0),
            "beam_idx": self._rows,
        }
        self._request.infer(inputs, share_inputs=True)
        self._position, self._rows = end, np.arange(count, dtype=np.int32)
        return torch.from_numpy(self._request.get_output_tensor(0).data)

    def step(self, tokens: Tensor) -> Tensor:
        return self.start(F.embedding(tokens, self._table)[:, None])

    def keep(self, rows: Tensor) -> None:
        self._rows = self._rows[rows.numpy()]


class _Step(nn.Module):
    """What is traced: new positions and keys and values so far; logits, and those with the new."""

    def __init__(self, llm: Any) -> None:
        super().__init__()
        self._llm = llm

    def forward(
        self, inputs_embeds: Tensor, position_ids: Tensor, mask: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        cache: Any = DynamicCache(config=self._llm.config)
        for layer, keys, values in zip(cache.layers, past[::2], past[1::2], strict=True):
            layer.keys, layer.values, layer.is_initialized = keys, values, True
        logits = self._llm(
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        present = [each for layer in cache.layers for each in (layer.keys, layer.values)]
        return logits[:, -1], *present


@torch.inference_mode()
def stateful_graph(llm: Any) -> ov.Model:
    """The LLM as a graph that keeps keys and values to itself.

    Its inputs are `inputs_embeds` (B, P, H), `position_ids` (1, P), `mask` (B, 1, P, T), which is
    added to the scores, and `beam_idx` (B), the rows of the state to go on with: fewer than there
    are, to drop some. Its output is the logits (B, V) of the last position.
    """
    attention = llm.model.layers[0].self_attn
    heads, size = llm.config.num_key_value_heads, attention.head_dim
    past = [torch.zeros(2, heads, 3, size) for _ in range(2 * llm.config.num_hidden_layers)]
    width = llm.config.hidden_size
    example = (torch.zeros(2, 4, width), torch.arange(3, 7)[None], torch.zeros(2, 1, 4, 7), past)
    graph = ov.convert_model(_Step(llm), example_input=example)
    for port in graph.inputs[3:]:
        port.get_node().set_partial_shape(ov.PartialShape([-1, heads, -1, size]))
    graph.reshape(
        {"inputs_embeds": [-1, -1, width], "position_ids": [1, -1], "mask": [-1, 1, -1, -1]}
    )
    _keep_state(graph, [heads, 0, size])
    return graph


def _keep_state(graph: ov.Model, empty: list[int]) -> None:
    """Turn keys and values, in and out, into a state; it begins as (B, *empty)."""
    rows = ops.parameter([-1], dtype=ov.Type.i32, name="beam_idx")
    rows.output(0).get_tensor().set_names({"beam_idx"})
    pairs = list(zip(graph.inputs[3:], graph.outputs[1:], strict=True))
    graph.add_parameters([rows])
    names = {}
    for number, (past, present) in enumerate(pairs):
        names[f"past_{number}"] = f"present_{number}"
        past.get_tensor().set_names({f"past_{number}"})
        present.get_tensor().set_names({f"present_{number}"})
        readers = past.get_target_inputs()
        chosen = ops.gather(past, rows, ops.constant(0))
        for reader in readers:
            reader.replace_source_output(chosen.output(0))
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(graph, names)
    shape = ops.shape_of(graph.input("inputs_embeds"), output_type="i64")
    count = ops.gather(shape, ops.constant([0]), ops.constant(0))
    begin = ops.broadcast(
        ops.constant(np.float32(0)),
        ops.concat([count, ops.constant(np.array(empty, dtype=np.int64))], axis=0),
    )
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([begin])
    graph.validate_nodes_and_infer_types()


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
