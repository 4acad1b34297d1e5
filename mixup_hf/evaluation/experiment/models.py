"""The models that arms share, loaded once and only when an arm asks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixup_hf.config import MixupConfig
from mixup_hf.data.label_names import describe_labels
from mixup_hf.data.sources import resolve
from mixup_hf.data.targets import read_targets
from mixup_hf.data.text_pairs import PairEncoder, are_pairs
from mixup_hf.inverter.engines import make_engine
from mixup_hf.inverter.engines.base import DecodeSettings, Engine
from mixup_hf.inverter.loading import hub_revision
from mixup_hf.inverter.model import Inverter
from mixup_hf.inverter.pretrained import load_tokenizer
from mixup_hf.inverter.prompt import end_ids
from mixup_hf.inverter.quantization import load_llm
from mixup_hf.inverter.sampling import decode
from mixup_hf.judging.labels import Committee
from mixup_hf.runtime import counter_rng
from mixup_hf.training.committee import build_committee

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.task import Task

_CALIBRATING = 256  # unlabelled texts that show how sure a committee is
_WRITING = 11  # what this stream of random numbers is for; part of its key


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
                quantization=self._config.quantization,
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
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The LLM's tokenizer."""
        return load_tokenizer(self._source)

    def committee(self, task: Task, calibration_texts: Sequence[str] | None = None) -> Committee:
        """The committee that the task's `mixup` names, fitted on its training rows.

        It is fitted once for all arms on the same rows.

        Args:
            task: What the arm works with.
            calibration_texts: Texts of which the committee may not be surer than it is right.
                Default: the unlabelled texts, where there are any.
        """
        if calibration_texts is None:
            calibration_texts = task.unlabeled[:_CALIBRATING]
        inverter, texts = self.inverter, task.train.texts
        encoder = PairEncoder(inverter) if are_pairs(texts) else inverter
        return build_committee(
            inverter,
            encoder,
            texts,
            encoder.encode(texts),
            read_targets(task.train.labels, None, task.names),
            members=task.mixup.committee,
            descriptions=describe_labels(task.names, task.run.data.label_descriptions),
            seed=task.seed,
            calibration=lambda: calibration_texts,
        )

    def as_question(self, question: str) -> str:
        """The prompt that asks the LLM a question: in its chat template, if it has one."""
        if not self.tokenizer.chat_template:
            return f"{question}\n\n"
        turn = [{"role": "user", "content": question}]
        return str(
            self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        )

    def continuations(self, prompts: Sequence[str], seed: int, *, tokens: int) -> list[str]:
        """Sample what the LLM generates after each prompt; the global generators are not touched.

        Args:
            prompts: Texts (N), any of them empty.
            seed: Of the sampling; each prompt has its own stream of random numbers.
            tokens: How many tokens to generate at most.
        """
        # The tokenizer turns an empty text into no tokens, and the model needs at least one.
        asked = [
            self.tokenizer(text or str(self.tokenizer.eos_token)).input_ids for text in prompts
        ]
        settings = DecodeSettings(max_new_tokens=tokens, temperature=0.7, top_p=0.95)
        answers = [""] * len(prompts)
        for length in sorted(set(map(len, asked))):  # prompts of one length need no padding
            rows = [row for row, ids in enumerate(asked) if len(ids) == length]
            drawn = [counter_rng(seed, _WRITING, row).random(tokens) for row in rows]
            found = decode(
                self._engine,
                self._embed([asked[row] for row in rows]),
                end_ids=end_ids(self.tokenizer, self.llm),
                settings=settings,
                uniforms=np.stack(drawn),
            )
            texts = self.tokenizer.batch_decode(found, skip_special_tokens=True)
            for row, text in zip(rows, texts, strict=True):
                answers[row] = text
        return answers

    @cached_property
    def _engine(self) -> Engine:
        return make_engine(self.llm, "auto")

    def _embed(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Input embeddings (B, P, H) of rows of P tokens."""
        table = self.llm.get_input_embeddings()
        found: Tensor = table(torch.tensor(ids, device=self.inverter.device)).detach()
        return found

    @property
    def _source(self) -> str:
        # The aligner's own revision: another one has other weights, or does not exist any more.
        config = self.inverter.aligner.config
        return str(resolve(config.llm, revision=hub_revision(config.llm_revision)).path)
