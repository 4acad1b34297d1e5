"""The models that arms share, loaded once and only when an arm asks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mixup_hf.config import MixupConfig
from mixup_hf.data.sources import resolve
from mixup_hf.inverter.engines.registry import Engine, make_engine
from mixup_hf.inverter.model import Inverter
from mixup_hf.inverter.prompt import end_ids
from mixup_hf.inverter.quantization import load_llm


class Models:
    """An inverter, and its LLM as it was before it was aligned.

    Args:
        config: Which aligner, and what decodes.
    """

    def __init__(self, config: MixupConfig) -> None:
        self._config = config

    @cached_property
    def inverter(self) -> Inverter:
        """Decodes mixes."""
        with torch.random.fork_rng():  # loading draws
            return Inverter.from_pretrained(
                self._config.aligner,
                revision=self._config.revision,
                quantization=self._config.quantization,  # type: ignore[arg-type]  # checked there
                engine=self._config.engine,
            )

    @cached_property
    def llm(self) -> Any:
        """The LLM without the LoRA, in float32."""
        source, device = self._source, self.inverter.device
        with torch.random.fork_rng():
            return load_llm(
                source, quantization="none", dtype=torch.float32, device=device, base_grid=None
            )

    @cached_property
    def engine(self) -> Engine:
        """Runs it."""
        return make_engine(self.llm, "auto")

    @cached_property
    def end_ids(self) -> Sequence[int]:
        """Token ids that end what it says."""
        return end_ids(self.tokenizer, self.llm)

    def embed(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Its input embeddings (B, P, H) of rows of P tokens."""
        table = self.llm.get_input_embeddings()
        found: Tensor = table(torch.tensor(ids, device=self.inverter.device)).detach()
        return found

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The LLM's."""
        return AutoTokenizer.from_pretrained(self._source)

    @property
    def _source(self) -> str:
        return str(resolve(self.inverter.aligner.config.llm).path)
