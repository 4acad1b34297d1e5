"""Embeddings and states, computed once per text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mixup_hf.inverter.quantization import fast_autocast
from mixup_hf.judging.labels.types import LabelInputs, ReadsText
from mixup_hf.types import Encodes

LARGEST = 4096  # texts that are remembered besides the training texts


class Memory:
    """Remembers one row (a tensor of any shape) per text, that of training texts for good.

    Args:
        compute: Computes the rows (n, ...) of texts.
        kept: Texts that are never forgotten.
    """

    def __init__(self, compute: Callable[[list[str]], Tensor], kept: Sequence[str]) -> None:
        self._compute = compute
        self._kept = frozenset(kept)
        self._rows: dict[str, Tensor] = {}

    def add(self, texts: Sequence[str], rows: Tensor) -> None:
        """Remember rows (n, ...) that are known."""
        self._rows.update(zip(texts, rows.float(), strict=True))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The rows (n, ...) of n texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if new:
            self.add(new, self._compute(new))
        result = torch.stack([self._rows[text] for text in texts])
        if len(self._rows) > LARGEST + len(self._kept):
            self._rows = {text: row for text, row in self._rows.items() if text in self._kept}
        return result


def _in_bf16(compute: Callable[[list[str]], Tensor]) -> Callable[[list[str]], Tensor]:
    """The same on a CPU in bf16, if that is faster: labels of many sentences need no more."""

    def computed(texts: list[str]) -> Tensor:
        with fast_autocast(torch.device("cpu")):
            return compute(texts)

    return computed


class _Encoder:
    def __init__(self, encoder: Encodes, texts: Sequence[str], embeddings: Tensor) -> None:
        self._memory = Memory(_in_bf16(encoder.encode), texts)
        self._memory.add(texts, embeddings)

    def encode(self, texts: Sequence[str]) -> Tensor:
        return self._memory(texts)


class _Llm:
    def __init__(self, llm: ReadsText, texts: Sequence[str]) -> None:
        self._llm, self._texts = llm, texts
        self._states = Memory(llm.hidden_states, texts)
        self._likelihoods: dict[tuple[str, ...], Memory] = {}

    def hidden_states(self, texts: Sequence[str]) -> Tensor:
        return self._states(texts)

    def label_log_likelihood(self, texts: Sequence[str], names: Sequence[str]) -> Tensor:
        key = tuple(names)
        if key not in self._likelihoods:
            self._likelihoods[key] = Memory(
                _in_bf16(lambda new: self._llm.label_log_likelihood(new, key)), self._texts
            )
        return self._likelihoods[key](texts)


def remembering(inputs: LabelInputs) -> LabelInputs:
    """The same inputs, whose encoder and LLM read each text once for all members."""
    return replace(
        inputs,
        encoder=_Encoder(inputs.encoder, inputs.texts, inputs.embeddings),
        llm=None if inputs.llm is None else _Llm(inputs.llm, inputs.texts),
    )
