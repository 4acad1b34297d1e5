"""An LLM as an OpenVINO graph that keeps its keys and values, and as an `Engine` that runs it."""

from __future__ import annotations

import weakref
from typing import Any

import nncf
import numpy as np
import openvino as ov
import torch
from openvino import opset13 as ops
from openvino._offline_transformations import apply_make_stateful_transformation
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

_MOST_ROWS = 256
_STEP = 8


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
