"""The models that arms share, loaded once and only when an arm asks."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mixup_hf.config import MixupConfig
from mixup_hf.inverter.engines import fast_dtype
from mixup_hf.inverter.model import Inverter
from mixup_hf.inverter.quantization import load_llm
from mixup_hf.inverter.sources import resolve


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
        return Inverter.from_pretrained(
            self._config.aligner, revision=self._config.revision, engine=self._config.engine
        )

    @cached_property
    def llm(self) -> Any:
        """The LLM without the LoRA, in bf16 where the CPU is fast in it."""
        return load_llm(
            self._source,
            quantization="none",
            dtype=fast_dtype(),
            device=self.inverter.device,
            base_grid=None,
        )

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The LLM's; batches are padded on the left, so that all end where writing begins."""
        tokenizer = AutoTokenizer.from_pretrained(self._source, padding_side="left")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    @property
    def _source(self) -> str:
        return str(resolve(self.inverter.aligner.config.llm).path)
