"""The inverter: embeddings in, sentences out."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelCard
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors
from mixup_hf.inverter.checkpoint import (
    LORA_FOLDER,
    Aligner,
    push_folder,
    save_checkpoint,
)
from mixup_hf.inverter.encoder import FrozenEncoder
from mixup_hf.inverter.engines import make_writer
from mixup_hf.inverter.engines.base import DecodeSettings, DecodingParts, Writer
from mixup_hf.inverter.engines.vllm import ServerSettings
from mixup_hf.inverter.likelihood import label_log_likelihood
from mixup_hf.inverter.loading import EMBEDDED_ALIGNER, load_parts
from mixup_hf.inverter.prompt import SoftPrompt, end_ids
from mixup_hf.inverter.quantization import Quantization
from mixup_hf.mixing.interpolation import linear
from mixup_hf.runtime import memory_ran_out

# Sentences on which a server is compared with what decodes here.
_PROBES = (
    "Where is the nearest station?",
    "A new phone was shown to the press on Monday.",
    "She thanked her mother for the cake.",
    "Shares fell after the bank's warning.",
    "I never liked the second half of that film.",
    "The law will be changed before the election.",
    "Please turn the lights off in the kitchen.",
    "Two goals in the last minute decided the match.",
)


class Inverter:
    """Reads embeddings and says what is in them.

    Load one with `from_pretrained`; the constructor takes parts that are loaded already.

    Args:
        encoder: The frozen encoder the aligner was trained for.
        aligner: Projector and config.
        llm: The LLM, with the aligner's LoRA, frozen, on its device.
        tokenizer: The LLM's tokenizer.
        name: What users call the aligner; goes into the rows it makes.
        fingerprint: Digest of the aligner's weights.
        folder: The checkpoint it was loaded from; holds the LoRA when `llm` has it merged in.
        engine: What decodes, one of `ENGINES`. Only `"transformers"` sees later changes of `llm`.
        dtype: Compute type of the fast engine.
        quantization: How the LLM's weights are held.
        server: How a server is talked to, where `engine` is one.

    Raises:
        ServerError: `engine` is a server that is not there, or not right.
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
        self._folder = folder
        self.quantization = quantization
        base = llm.get_base_model() if hasattr(llm, "peft_config") else llm
        self._base = base
        # A LoRA that is not merged lives in hooks of the base model: transformers runs them.
        self.prompt = SoftPrompt.build(aligner, base, tokenizer)
        ends = end_ids(tokenizer, base)
        parts = DecodingParts(base, tokenizer, ends, dtype, self._probes, server)
        self._writer: Writer = make_writer(engine, parts)

    @classmethod
    def from_pretrained(
        cls,
        aligner: str | Path = EMBEDDED_ALIGNER,
        *,
        revision: str | None = None,
        quantization: Quantization | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        engine: str = "auto",
        server: ServerSettings | None = None,
    ) -> Inverter:
        """Load an aligner with its encoder and its LLM.

        Args:
            aligner: `"embedded"` for the one that ships in the package, a folder, or a Hub id.
            revision: Hub revision of the aligner.
            quantization: `"4bit"` (bitsandbytes nf4) or `"none"`. Default: 4-bit on CUDA; none
                elsewhere, where 4-bit weights save little and decode slower. Both decode from the
                same rounded weights when the aligner was trained on them.
            device: Where the models go. Default: CUDA if there is one.
            dtype: Compute type. Default: bf16 where the engine is fast in it, else float32.
            engine: `"transformers"`, `"fast"` (a packed copy of the weights, on CPUs), `"auto"`:
                fast where it can be, or `"vllm:http://host:8000"`, a server.
            server: How a server is talked to.

        Raises:
            AlignerMismatchError: The checkpoint is damaged, or its encoder or LLM is not the one it
                was trained for.
            ServerError: `engine` is a server that is not there, or not right.
            SourceError: A base model cannot be had.
        """
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
        """What decodes: `fast:bfloat16`, `transformers:float32`, `vllm:MODEL`."""
        return self._writer.name

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
        batch_size: int = 256,
        progress: bool = True,
    ) -> list[str]:
        """Decode embeddings to sentences.

        The same call gives the same sentences, always; the global random state is neither read nor
        changed. Row r draws from a stream of its own, so in float32 it decodes alone as it does in
        a batch. In bf16 the composition of a batch can tip near-ties, which is why the plugin
        always decodes the same chunks.

        Args:
            embeddings: (N, D), as `encode` returns them, or mixes of such.
            seed: An integer, or several that are combined.
            max_new_tokens: Longest sentence, in tokens.
            temperature: 0 decodes greedily.
            top_p: Nucleus.
            top_k: Tokens considered at each step.
            num_candidates: Sentences decoded per embedding, of which the one closest to the
                embedding when encoded again is returned.
            batch_size: Rows decoded at a time; bounds memory. The fast engine cuts them into
                batches of at most 256, side by side on cores of their own.
            progress: Show a progress bar once it has taken two seconds.

        Returns:
            N sentences, none of them empty.

        Raises:
            ValueError: A setting is out of range, or `embeddings` is not (N, D).
        """
        settings = DecodeSettings(max_new_tokens, temperature, top_p, top_k, num_candidates)
        dimension = self.aligner.config.embedding_dim
        if embeddings.ndim != 2 or embeddings.shape[1] != dimension:
            raise errors.bad("embeddings", f"be of shape (N, {dimension})", tuple(embeddings.shape))
        errors.at_least("batch_size", batch_size, 1)
        keys = tuple(seed) if isinstance(seed, Sequence) else (int(seed),)
        for key in keys:
            errors.at_least("seed", key, 0)
        sentences: list[str] = []
        with tqdm(
            total=len(embeddings), desc="decoding", delay=2, disable=not progress
        ) as progress_bar:
            while (start := len(sentences)) < len(embeddings):
                rows = embeddings[start : start + batch_size]
                try:
                    sentences += self._best(rows, settings, keys, start)
                except RuntimeError as error:
                    batch_size = _smaller_batch(error, len(rows))
                    continue
                progress_bar.update(len(rows))
        return sentences

    def to_be_refined(self) -> Inverter:
        """This inverter with an aligner of its own; encoder, LLM and engine are shared."""
        other = copy.copy(self)
        other.aligner = copy.deepcopy(self.aligner)
        other.prompt = SoftPrompt.build(other.aligner, self._base, self.tokenizer).to(self.device)
        other.fingerprint = f"{self.fingerprint}+task"
        return other

    def label_log_likelihood(self, texts: Sequence[str], names: Sequence[str]) -> Tensor:
        """Mean log-likelihood per token (n, C) of each class name after each text."""
        return label_log_likelihood(self._base, self.tokenizer, texts, names)

    def mix_weights(self, lams: Tensor) -> Tensor:
        """The embedding weights (n,) at which decoded sentences lie at the ratios `lams` (n,).

        From the aligner's ratio curve; without one, the ratios themselves. Beyond [0, 1] nothing is
        changed.
        """
        curve = self.aligner.config.ratio_curve
        if curve is None:
            return lams
        inside = lams.clamp(0, 1)
        grid = np.linspace(0, 1, len(curve))
        weights = torch.from_numpy(np.interp(inside.double().numpy(), grid, curve))
        return weights.to(lams.dtype) + (lams - inside)

    def interpolate(
        self, first: str, second: str, lams: Sequence[float], **settings: Any
    ) -> list[str]:
        """Sentences along the line from `second` (lam = 0) to `first` (lam = 1).

        Args:
            first: The text at lam = 1.
            second: The text at lam = 0.
            lams: Weights of `first`, each in [0, 1].
            **settings: As for `invert`; greedy by default.

        Returns:
            One sentence for each weight.
        """
        for lam in lams:
            errors.in_range("lams", lam, 0.0, 1.0, "1 is the first text, 0 the second.")
        ends = self.encode([first, second])
        weights = torch.tensor(list(lams), dtype=torch.float32)
        count = len(weights)
        weights = self.mix_weights(weights)
        mixes = linear(ends[:1].expand(count, -1), ends[1:].expand(count, -1), weights)
        return self.invert(mixes, **({"temperature": 0.0} | settings))

    def save_pretrained(self, folder: str | Path, card: ModelCard | None = None) -> Path:
        """Write the aligner (projector, LoRA, config; never the base models) to a folder."""
        target = save_checkpoint(folder, self.aligner, self.llm, card)
        lora = self._folder / LORA_FOLDER if self._folder is not None else None
        if (
            lora is not None
            and lora.is_dir()
            and lora.resolve() != (target / LORA_FOLDER).resolve()
        ):
            shutil.copytree(lora, target / LORA_FOLDER, dirs_exist_ok=True)
        return target

    def export_llm(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16) -> Path:
        """Write the LLM with its LoRA merged in, and its tokenizer, for a server to load.

        Raises:
            ValueError: The LLM is held in 4 bits, into which nothing can be merged.
        """
        if hasattr(self.llm, "peft_config"):
            raise errors.bad(
                "quantization", "be 'none' to export the LLM with its LoRA", self.quantization
            )
        copy.deepcopy(self.llm).to(dtype).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return Path(folder)

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
            repo_id: `user/name`; made if it does not exist.
            card: The model card. Default: the one of the checkpoint this was loaded from.
            private: Whether a new repository is private.
            token: Hub token; default: the one you are logged in with.

        Returns:
            The address of the commit.
        """
        with TemporaryDirectory() as scratch:
            folder = self.save_pretrained(scratch, card)
            kept = self._folder / "README.md" if self._folder is not None else None
            if card is None and kept is not None and kept.is_file():
                shutil.copyfile(kept, folder / "README.md")
            return push_folder(folder, repo_id, private=private, token=token)

    def _best(
        self, embeddings: Tensor, settings: DecodeSettings, keys: tuple[int, ...], start: int
    ) -> list[str]:
        """One sentence for each row: the only one decoded, or the best of several."""
        if settings.num_candidates == 1:
            return self._decode(embeddings, settings, keys, start, 0)
        rounds = [
            self._decode(embeddings, settings, keys, start, turn)
            for turn in range(settings.num_candidates)
        ]
        closeness = torch.stack(
            [F.cosine_similarity(self.encode(texts), embeddings.cpu()) for texts in rounds]
        )
        winners = closeness.argmax(0).tolist()
        return [rounds[winner][row] for row, winner in enumerate(winners)]

    def _decode(
        self,
        embeddings: Tensor,
        settings: DecodeSettings,
        keys: tuple[int, ...],
        start: int,
        turn: int,
    ) -> list[str]:
        streams = [(*keys, turn, start + row) for row in range(len(embeddings))]
        texts = self._writer.write(self._prompts(embeddings), settings, streams)
        return [_tidy(text) for text in texts]

    def _probes(self) -> Tensor:
        """Prompts (B, P, H) on which a server is compared with the local LLM."""
        return self._prompts(self.encode(_PROBES))

    @torch.inference_mode()
    def _prompts(self, embeddings: Tensor) -> Tensor:
        prompts: Tensor = self.prompt.to(self.device)(embeddings.to(self.device).float())
        return prompts


def _smaller_batch(error: RuntimeError, size: int) -> int:
    """Half of a batch for which memory ran out; any other error is raised again."""
    if size == 1 or not memory_ran_out(error):
        raise error
    warnings.warn(
        f"Memory ran out while decoding {size} sentences at once: going on with {size // 2}. Set "
        f"`batch_size` (in training: `chunk_size`) to {size // 2} to begin with that.",
        stacklevel=3,
    )
    return size // 2


def _tidy(text: str) -> str:
    """One line, single spaces. A sentence of white space only becomes an ellipsis."""
    return " ".join(text.split()) or "..."
