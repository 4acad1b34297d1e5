"""The inverter: embeddings in, sentences out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors, runtime
from mixup_hf.inverter.aligner import Aligner, on_curve
from mixup_hf.inverter.decoding import check_request, decode_embeddings, mixes_between, seed_keys
from mixup_hf.inverter.encoder import FrozenEncoder
from mixup_hf.inverter.engines import make_writer
from mixup_hf.inverter.engines.base import DecodeSettings, DecodingParts, Writer
from mixup_hf.inverter.engines.vllm import ServerSettings
from mixup_hf.inverter.hub import export_merged_llm, push_inverter, save_inverter
from mixup_hf.inverter.likelihood import label_log_likelihood
from mixup_hf.inverter.loading import EMBEDDED_ALIGNER, load_parts
from mixup_hf.inverter.parent_words import HINTS, Hints, Parents, ParentWords
from mixup_hf.inverter.prompt import SoftPrompt, end_ids
from mixup_hf.inverter.quantization import Quantization, read_dtype
from mixup_hf.inverter.states import hidden_states


class Inverter:
    """Decodes embeddings to sentences.

    Load one with `from_pretrained`; the constructor takes loaded parts.

    Args:
        encoder: The frozen encoder the aligner was trained for.
        aligner: Projector and config.
        llm: The LLM, with the aligner's LoRA, frozen, on its device.
        tokenizer: The LLM's tokenizer.
        name: The aligner as the user names it; recorded in generated rows.
        fingerprint: Digest of the aligner's weights.
        folder: The checkpoint it was loaded from; holds the LoRA when `llm` has it merged in.
        engine: The decoding engine: a registered name, with its argument if it has one. Only
            `"transformers"` reflects later changes of `llm`.
        dtype: Compute type of an engine that copies the weights.
        quantization: How the LLM's weights are stored.
        server: How requests are sent, if the engine is a server.

    Raises:
        ServerError: `engine` is a server that does not answer or serves another LLM.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        aligner: Aligner,
        llm: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "",
        fingerprint: str = "",
        folder: Path | None = None,
        engine: str = "transformers",
        dtype: torch.dtype | None = None,
        quantization: Quantization = "none",
        server: ServerSettings | None = None,
    ) -> None:
        self.encoder = encoder
        aligner.train(False)
        self.aligner = aligner.requires_grad_(False)
        self.llm = llm
        self.tokenizer = tokenizer
        self.name = name
        self.fingerprint = fingerprint
        self.folder = folder
        self.quantization = quantization
        self.made_with = (engine, dtype, server)  # to make one like it, with another aligner
        base = llm.get_base_model() if hasattr(llm, "peft_config") else llm
        self._base = base
        # A LoRA that is not merged is injected into the layers of the base model.
        self.prompt = SoftPrompt.build(aligner, base, tokenizer)
        ends = end_ids(tokenizer, base)
        parts = DecodingParts(base, tokenizer, ends, dtype, self._prompt_texts, server)
        self.writer: Writer = make_writer(engine, parts)

    @classmethod
    def from_pretrained(
        cls,
        aligner: str | Path = EMBEDDED_ALIGNER,
        *,
        revision: str | None = None,
        quantization: Quantization | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        engine: str = "auto",
        server: ServerSettings | None = None,
    ) -> Inverter:
        """Load an aligner with its encoder and its LLM.

        Args:
            aligner: `"embedded"` for the one that ships in the package, a folder, or a Hub id.
            revision: Hub revision of the aligner.
            quantization: `"4bit"` (bitsandbytes nf4) or `"none"`. Default: 4-bit on CUDA; `"none"`
                elsewhere, where 4-bit weights save little and decode slower. Both use the same
                rounded weights if the aligner was trained on them.
            device: Where the models go. Default: this process's device (its local rank's GPU).
            dtype: Compute type, or its name. Default: bf16 where the engine is fast in it, else
                float32.
            engine: `"transformers"`, `"fast"` (a packed copy of the weights, on CPUs), `"auto"`:
                fast where it can be, or `"vllm:http://host:8000"`, a server.
            server: How requests are sent, if the engine is a server.

        Raises:
            AlignerMismatchError: The checkpoint is damaged, or made for another encoder or LLM.
            ServerError: `engine` is a server that does not answer or serves another LLM.
            SourceError: A base model cannot be fetched.
        """
        dtype = read_dtype(dtype)
        parts = load_parts(
            str(aligner),
            revision=revision,
            quantization=quantization,
            device=device,
            dtype=dtype,
            engine=engine,
        )
        return cls(
            parts.encoder,
            parts.aligner,
            parts.llm,
            parts.tokenizer,
            name=str(aligner),
            fingerprint=parts.fingerprint,
            folder=parts.folder,
            engine=engine,
            dtype=dtype,
            quantization=parts.quantization,
            server=server,
        )

    @property
    def engine(self) -> str:
        """The engine in use: `fast:bfloat16`, `transformers:float32`, `vllm:MODEL`."""
        return self.writer.name

    @property
    def device(self) -> torch.device:
        """Where the projector and the LLM are."""
        return torch.device(self.aligner.projector.gain.device)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts with the frozen encoder: (N, D), float32, on the CPU."""
        return self.encoder.encode(texts)

    def invert(
        self,
        embeddings: Tensor,
        *,
        seed: int | Sequence[int] = 0,
        max_new_tokens: int = 40,
        temperature: float = 0.7,
        top_p: float = 0.95,
        top_k: int = 50,
        num_candidates: int = 1,
        questions: bool = True,
        corrections: int = 0,
        close_enough: float | None = None,
        lengths: Sequence[int] | None = None,
        parents: Sequence[Parents] | None = None,
        batch_size: int = 256,
        progress: bool = True,
    ) -> list[str]:
        """Decode embeddings to sentences.

        The same call always gives the same sentences; the global random state is neither read nor
        changed. Each row samples from a separate random stream, so in float32 it decodes the same
        alone and in a batch. In bf16 the composition of a batch can flip near-ties, which is why
        the plugin always decodes the same chunks.

        Args:
            embeddings: (N, D), as `encode` returns them, or mixes of such.
            seed: An integer, or several that are combined.
            max_new_tokens: Longest sentence, in tokens.
            temperature: 0 decodes greedily.
            top_p: Nucleus sampling.
            top_k: Tokens considered at each step.
            num_candidates: Sentences per embedding; the closest, encoded again, is returned.
            questions: Whether sentences may be questions; see `DecodeSettings`.
            corrections: How often the closest sentence is corrected; see `DecodeSettings`.
            close_enough: Cosine at which a row is not decoded again; None decodes every time.
            lengths: Wanted lengths (N), in tokens: sentences end near them, where an end is likely.
            parents: The texts that each embedding was mixed from, with their shares (N): their
                words are hinted too. Default: hints come from the embeddings alone.
            batch_size: Rows decoded at a time; bounds memory. The fast engine splits them into
                batches of at most 256, decoded in parallel on separate cores.
            progress: Show a progress bar once it has taken two seconds.

        Raises:
            ValueError: A setting is out of range, or `embeddings` is not (N, D).
        """
        sampling = (max_new_tokens, temperature, top_p, top_k)
        how = DecodeSettings(*sampling, num_candidates, questions, corrections, close_enough)
        check_request(self.aligner.config.embedding_dim, embeddings, parents, batch_size)
        request = (self._base, how, seed_keys(seed), parents, batch_size)
        with runtime.progress_bar(len(embeddings), "decoding", disable=not progress) as bar:
            return decode_embeddings(self, embeddings, *request, bar.update, lengths)

    def to_be_refined(self) -> Inverter:
        """A copy of this inverter with a separate aligner; encoder, LLM and engine are shared."""
        other = copy.copy(self)
        other.aligner = copy.deepcopy(self.aligner)
        other.prompt = SoftPrompt.build(other.aligner, self._base, self.tokenizer).to(self.device)
        other.fingerprint = f"{self.fingerprint}+task"
        return other

    def label_log_likelihood(self, texts: Sequence[str], names: Sequence[str]) -> Tensor:
        """Mean log-likelihood per token (n, C) of each class name after each text."""
        return label_log_likelihood(self._base, self.tokenizer, texts, names, lora=self.folder)

    def hidden_states(self, texts: Sequence[str]) -> Tensor:
        """Two states (n, 2, H) of the LLM, without the LoRA, for each text; see `states`."""
        return hidden_states(self._base, self.tokenizer, texts, lora=self.folder)

    def mix_weights(self, lams: Tensor) -> Tensor:
        """The embedding weights (n,) at which decoded sentences lie at the ratios `lams` (n,)."""
        return on_curve(self.aligner.config.ratio_curve, lams)

    def interpolate(
        self,
        first: str,
        second: str,
        lams: Sequence[float],
        hints: Hints = "embedding",
        **settings: Any,
    ) -> list[str]:
        """Sentences along the line from `second` (lam = 0) to `first` (lam = 1), one per ratio.

        Args:
            first: The text at lam = 1.
            second: The text at lam = 0.
            lams: Weights of `first`, each in [0, 1].
            hints: Whether hints come from the mixed embedding alone, or from both texts too.
            **settings: As for `invert`; greedy by default.
        """
        errors.one_of("hints", hints, HINTS)
        mixes = mixes_between(self, first, second, lams)
        if hints == "parents":
            settings["parents"] = [((first, lam), (second, 1 - lam)) for lam in lams]
        return self.invert(mixes, **({"temperature": 0.0} | settings))

    def save_pretrained(self, folder: str | Path, card: ModelCard | None = None) -> Path:
        """Write the aligner (projector, LoRA, config; never the base models) to a folder."""
        return save_inverter(self, folder, card)

    def export_llm(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16) -> Path:
        """Write the LLM with its LoRA merged in, and its tokenizer, for a server to load.

        Raises:
            InvalidInput: The LLM has 4-bit weights, into which nothing can be merged.
        """
        return export_merged_llm(self, folder, dtype)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: ModelCard | None = None,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Upload the aligner (projector, LoRA, config, card) to the Hub.

        Args:
            repo_id: `user/name`; created if it does not exist.
            card: The model card. Default: the one of the checkpoint this was loaded from.
            private: Whether a new repository is private.
            token: Hub token; default: the one you are logged in with.

        Returns:
            The URL of the commit.
        """
        return push_inverter(self, repo_id, card, private=private, token=token)

    @torch.inference_mode()
    def prompts(self, embeddings: Tensor, preferred: Tensor | None = None) -> Tensor:
        """Prompt embeddings (B, P, H) for embeddings (B, D), on the LLM's device."""
        given = embeddings.to(self.device).float()
        prompts: Tensor = self.prompt.to(self.device)(given, preferred)
        return prompts

    @cached_property
    def parent_words(self) -> ParentWords:
        """Finds parents' words, to prefer them as hints."""
        return ParentWords.of(self.aligner, self.tokenizer)

    def _prompt_texts(self, texts: Sequence[str]) -> Tensor:
        """Prompts (B, P, H) for texts."""
        return self.prompts(self.encode(texts))
