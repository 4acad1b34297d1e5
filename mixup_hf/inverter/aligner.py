"""The aligner, and the config that names the encoder and the LLM it was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from mixup_hf import errors
from mixup_hf.inverter.encoder import POOLINGS
from mixup_hf.inverter.lexicon import HintTokens, Lexicon
from mixup_hf.inverter.projector import Projector

FORMAT_VERSION = 2


class AlignerConfig(PreTrainedConfig):
    """What an aligner was trained for.

    Attributes:
        encoder, encoder_revision, encoder_fingerprint: The frozen encoder and the digest of its
            weights and tokenizer.
        pooling, normalize: How its token states become one embedding.
        encoder_prefix: Text put before every input of the encoder.
        embedding_dim: D.
        llm, llm_revision, llm_fingerprint: The LLM and the digest of its weights and tokenizer.
        llm_dim: H.
        base_grid: `"nf4"` if the LoRA was trained over nf4 weights, else None.
        num_soft_tokens: K.
        num_hints: M, hint tokens before the soft tokens; 0 for none.
        lexicon_words, lexicon_width, lexicon_rank: Sizes of the network that predicts them.
        projector_width: Width of the projector's hidden layer.
        embedding_rms: Root mean square of the LLM's embedding table; soft tokens are scaled to it.
        prompt_prefix, prompt_suffix: Text before and after the soft tokens.
        guidance: How strongly the lexicon's opinion of words is added to the LLM's while decoding;
            see `mixup_hf.inverter.guidance`. 0 for not at all.
        ratio_curve: Embedding weights for evenly spaced ratios from 0 to 1, at which decoded
            sentences lie at those ratios; None mixes in the ratio itself.
        format_version: Raised when older code can no longer read a checkpoint.
    """

    model_type = "mixup_hf_aligner"

    def __init__(
        self,
        encoder: str = "all-minilm-l6-v2",
        encoder_revision: str | None = None,
        encoder_fingerprint: str | None = None,
        pooling: str = "mean",
        normalize: bool = True,
        encoder_prefix: str = "",
        embedding_dim: int = 384,
        llm: str = "smollm2-135m-instruct",
        llm_revision: str | None = None,
        llm_fingerprint: str | None = None,
        llm_dim: int = 576,
        base_grid: str | None = "nf4",
        num_soft_tokens: int = 4,
        projector_width: int = 1536,
        num_hints: int = 0,
        lexicon_words: int = 0,
        lexicon_width: int = 1024,
        lexicon_rank: int = 256,
        embedding_rms: float = 1.0,
        prompt_prefix: str = "",
        prompt_suffix: str = "",
        guidance: float = 0.0,
        ratio_curve: list[float] | None = None,
        format_version: int = FORMAT_VERSION,
        **kwargs: Any,
    ) -> None:
        texts = {"encoder": encoder, "llm": llm, "encoder_prefix": encoder_prefix}
        _check_texts(**texts, prompt_prefix=prompt_prefix, prompt_suffix=prompt_suffix)
        errors.positive("embedding_rms", embedding_rms)
        errors.one_of("pooling", pooling, POOLINGS)
        errors.one_of("base_grid", base_grid, ("nf4", None))
        errors.at_least("num_soft_tokens", num_soft_tokens, 1)
        errors.at_least("projector_width", projector_width, 1)
        errors.at_least("guidance", guidance, 0.0, "0 decodes without it.")
        _check_hints(num_hints, lexicon_words)
        self.encoder = encoder
        self.encoder_revision = encoder_revision
        self.encoder_fingerprint = encoder_fingerprint
        self.pooling, self.normalize, self.encoder_prefix = pooling, normalize, encoder_prefix
        self.embedding_dim = embedding_dim
        self.llm = llm
        self.llm_revision = llm_revision
        self.llm_fingerprint = llm_fingerprint
        self.llm_dim = llm_dim
        self.base_grid = base_grid
        self.num_soft_tokens = num_soft_tokens
        self.projector_width = projector_width
        self.num_hints = num_hints
        self.lexicon_words = lexicon_words
        self.lexicon_width = lexicon_width
        self.lexicon_rank = lexicon_rank
        self.embedding_rms = embedding_rms
        self.prompt_prefix, self.prompt_suffix = prompt_prefix, prompt_suffix
        self.guidance = guidance
        self.ratio_curve = _checked_curve(ratio_curve)
        self.format_version = format_version
        super().__init__(**kwargs)


def _check_texts(**texts: str) -> None:
    for name, text in texts.items():
        errors.text(name, text)


def _check_hints(num_hints: int, lexicon_words: int) -> None:
    errors.at_least("num_hints", num_hints, 0)
    if num_hints:
        errors.at_least(
            "lexicon_words",
            lexicon_words,
            num_hints,
            "The corpus has too few frequent words for that many hints: give more sentences.",
        )


def _checked_curve(curve: list[float] | None) -> list[float] | None:
    if curve is None:
        return None
    rises = all(low <= high for low, high in pairwise(curve))
    if len(curve) < 2 or not rises or curve[0] != 0 or curve[-1] != 1:
        raise errors.bad("ratio_curve", "increase from 0 to 1 and have at least two values", curve)
    return list(curve)


def on_curve(curve: Sequence[float] | None, lams: torch.Tensor) -> torch.Tensor:
    """The weights (n,) of ratios `lams` (n,) on a ratio curve; without one, the ratios themselves.

    Beyond [0, 1] the curve continues with slope 1.
    """
    if curve is None:
        return lams
    inside = lams.clamp(0, 1)
    grid = np.linspace(0, 1, len(curve))
    weights = torch.from_numpy(np.interp(inside.double().numpy(), grid, curve))
    return weights.to(lams.dtype) + (lams - inside)


class Aligner(PreTrainedModel):
    """The projector and the hint network, with a config that names the encoder and the LLM.

    Encoder and LLM are not submodules: they are loaded from where the config says, so that an
    aligner stays small. The LoRA is peft's and is written beside the projector by
    `checkpoint.save_checkpoint`.
    """

    config_class = AlignerConfig
    config: AlignerConfig
    base_model_prefix = "aligner"
    main_input_name = "embeddings"

    def __init__(self, config: AlignerConfig) -> None:
        super().__init__(config)
        self.projector = Projector(
            config.embedding_dim,
            config.llm_dim,
            config.num_soft_tokens,
            config.projector_width,
            config.embedding_rms,
        )
        self.hints = _hint_tokens(config) if config.num_hints else None
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Keep torch's own initialisation: the projector has no transformer layers to rescale."""

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Map embeddings (B, D) to soft tokens (B, K, H)."""
        tokens: torch.Tensor = self.projector(embeddings)
        return tokens


def _hint_tokens(config: AlignerConfig) -> HintTokens:
    lexicon = Lexicon(
        config.embedding_dim, config.lexicon_words, config.lexicon_width, config.lexicon_rank
    )
    return HintTokens(lexicon, config.llm_dim, config.num_hints, config.embedding_rms)
