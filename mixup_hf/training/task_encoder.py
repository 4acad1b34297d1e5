"""Embeddings from the model being trained, and an aligner that is kept up to date with it.

Implements stages 2 and 3 of arXiv 2601.21543 inside the training loop: once the model has been
warmed up on the labeled texts, the projector is refined on its embeddings. After that, it is
refreshed whenever the model has drifted too far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors, runtime
from mixup_hf.inverter.batches import TokenBudgetBatches
from mixup_hf.inverter.encoder import TaskEncoder
from mixup_hf.inverter.model import Inverter
from mixup_hf.inverter.objective import AlignmentModel
from mixup_hf.inverter.quantization import bf16_is_fast
from mixup_hf.inverter.refinement import generation_loss, refresh

_BATCH_TOKENS = 1024
_PROBE_SIZE = 64  # staleness is checked before every refill, so it must be cheap
_WEIGHTS_FILE = "projector.safetensors"


class FollowingInverter:
    """An inverter whose encoder is the model being trained.

    The given inverter is not modified: only a copy of its projector is refined. The LLM and its
    LoRA stay frozen. Sentences decoded by the frozen inverter are added to the labeled texts so
    that the projector does not memorize a small training set.

    Args:
        inverter: Provides the initial projector.
        texts: The labeled texts (N).
        tokenizer: Tokenizer of the model being trained.
        rehearsed: Returns the sentences to train on besides the texts; called when first needed.
        steps: Optimizer steps of the first refinement; a refresh takes half as many.
        threshold: Staleness, in nats per token, above which the projector is refreshed.
        seed: Seed for the order of batches.
    """

    def __init__(
        self,
        inverter: Inverter,
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        rehearsed: Callable[[], list[str]] = list,
        steps: int = 32,
        threshold: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.inverter = inverter.to_be_refined()
        self.texts = list(texts)
        self.tokenizer = tokenizer
        self.rehearsed = rehearsed
        self.steps = steps
        self.threshold = threshold
        self.seed = seed
        self.reference: float | None = None  # L_GEN of the probe right after the last refinement
        self._rehearsed: list[str] | None = None
        self._encoder: TaskEncoder | None = None

    def follow(self, model: Any) -> float:
        """Embed with `model` from now on, and refine the projector if it is due.

        Args:
            model: The classifier being trained; its base model is the encoder.

        Returns:
            How stale the projector was, in nats per token; 0 on the first call.

        Raises:
            ValueError: The size of the model's embeddings does not match the aligner's input.
        """
        self._encoder = self._encoder_of(model)
        started = time.monotonic()
        if self.reference is None:
            before, after = self._refine(self.steps)
            runtime.log(
                f"the aligner was refined for the model in training in "
                f"{time.monotonic() - started:.0f} s: L_GEN {before:.2f} -> {after:.2f} nats/token"
            )
            return 0.0
        # All processes must make the same decision: their values differ in the last digits, and if
        # only some of them refreshed, their aligners would diverge.
        staleness = runtime.agree(self._probe() - self.reference)
        if staleness <= self.threshold:
            runtime.log(f"the aligner is {staleness:.2f} nats/token stale: it stays as it is")
            return staleness
        _, after = self._refine(max(1, self.steps // 2))
        runtime.log(
            f"the aligner was {staleness:.2f} nats/token stale (threshold {self.threshold}) and "
            f"was refreshed in {time.monotonic() - started:.0f} s"
        )
        return staleness

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed with the current state of the model: (N, D), float32."""
        if self._encoder is None:
            raise errors.InvalidState("No model is followed yet: call `follow` first.")
        return self._encoder.encode(texts, progress=False)

    def save(self, folder: Path) -> None:
        """Save the refined weights, if any."""
        if self.reference is None:
            return
        state = {name: value.clone() for name, value in self._trained().items()}
        state["reference"] = torch.tensor(self.reference)
        save_file(state, folder / _WEIGHTS_FILE)

    def load(self, folder: Path) -> None:
        """Load what `save` wrote; a checkpoint from the warm-up contains nothing to load."""
        if not (folder / _WEIGHTS_FILE).is_file():
            return
        state = load_file(folder / _WEIGHTS_FILE)
        self.reference = float(state.pop("reference"))
        aligner = self.inverter.aligner
        aligner.load_state_dict(aligner.state_dict() | state)

    def _trained(self) -> dict[str, Tensor]:
        state = self.inverter.aligner.state_dict()
        return {name: value for name, value in state.items() if ".lexicon." not in name}

    def _encoder_of(self, model: Any) -> TaskEncoder:
        config = self.inverter.aligner.config
        model = _without_peft(model)
        body = model.base_model
        width = getattr(getattr(body, "config", None), "hidden_size", None)
        if body is model or width != config.embedding_dim:
            raise errors.InvalidInput(
                f"`source` = 'task' needs a model whose encoder has vectors of "
                f"{config.embedding_dim} entries, as {config.encoder} has, but "
                f"{type(model).__name__} has {width}. Fine-tune {config.encoder}, train an aligner "
                "for your model, or set `source: frozen`."
            )
        return TaskEncoder(
            body,
            self.tokenizer,
            pooling=config.pooling,  # type: ignore[arg-type]  # checked on aligner creation
            normalize=config.normalize,
            prefix=config.encoder_prefix,
        )

    def _refine(self, steps: int) -> tuple[float, float]:
        batches = self._batches(self.texts + self._rehearsed_texts())
        with self._autocast():
            found = refresh(self._model(), batches, steps=steps, seed=self.seed)
        self.reference = self._probe()
        return found

    def _rehearsed_texts(self) -> list[str]:
        if self._rehearsed is None:
            self._rehearsed = self.rehearsed()
        return self._rehearsed

    def _probe(self) -> float:
        with self._autocast():
            return generation_loss(self._model(), self._batches(self.texts[:_PROBE_SIZE]))

    def _model(self) -> AlignmentModel:
        # In eval mode, to which every use returns it: the LLM is the one that decodes.
        model = AlignmentModel(self.inverter.prompt, self.inverter.llm)
        return model.eval()

    def _autocast(self) -> torch.autocast:
        device, weight = self.inverter.device, self.inverter.llm.get_input_embeddings().weight
        wanted = weight.dtype == torch.bfloat16 or bf16_is_fast(device)
        return torch.autocast(device.type, torch.bfloat16, enabled=wanted)

    def _batches(self, texts: list[str]) -> TokenBudgetBatches:
        tokenizer = self.inverter.tokenizer
        return TokenBudgetBatches(
            texts,
            self.encode(texts).numpy(),
            tokenizer,
            prompt_length=self.inverter.prompt.length,
            batch_tokens=_BATCH_TOKENS,
            end_id=int(tokenizer.eos_token_id),
            seed=self.seed,
        )


def _without_peft(model: Any) -> Any:
    """Return the classifier inside a PEFT wrapper, with its trained layers in place.

    Raises:
        InvalidInput: The model uses prompt tuning, whose parameters are outside the classifier.
    """
    if not hasattr(model, "get_base_model"):
        return model
    if model.active_peft_config.is_prompt_learning:
        raise errors.InvalidInput(
            "`source` = 'task' embeds texts with the model in training, but prompt tuning trains "
            "nothing in its encoder. Use LoRA, or set `source: frozen`."
        )
    return model.get_base_model()
