"""What one alignment run holds: the partners, the sentences, the aligner in training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelCard

from mixup_hf import errors, runtime
from mixup_hf.align.data import cached_embeddings, read_sentences
from mixup_hf.align.joined import with_joined
from mixup_hf.align.lora import load_lora, with_lora
from mixup_hf.align.settings import claim, digest, stage_settings
from mixup_hf.align.warmup import warm_up
from mixup_hf.config import AlignConfig, StageConfig, TaskConfig
from mixup_hf.data.sources import resolve
from mixup_hf.data.tables import LabelledTexts, read_table
from mixup_hf.data.wheels import file_sha256
from mixup_hf.inverter.aligner import Aligner, AlignerConfig
from mixup_hf.inverter.batches import StackedRows, TokenBudgetBatches, WordBatches
from mixup_hf.inverter.checkpoint import check_partner, fingerprint, load_aligner, save_checkpoint
from mixup_hf.inverter.encoder import FrozenEncoder
from mixup_hf.inverter.lexicon import Lexicon
from mixup_hf.inverter.loading import aligner_folder
from mixup_hf.inverter.objective import AlignmentModel
from mixup_hf.inverter.offered import OfferedWords
from mixup_hf.inverter.pretrained import load_tokenizer
from mixup_hf.inverter.prompt import SoftPrompt, end_ids, input_rms, prompt_texts
from mixup_hf.inverter.quantization import bf16_is_fast, load_llm, warn_of_slow_bf16


class Session:
    """Everything one alignment run holds.

    With `start_from`, sizes, prompt and LoRA are those of the aligner it starts from.

    Args:
        config: The run's.
        device: Where it trains.

    Raises:
        AlignerMismatchError: `start_from` or `lexicon_from` names an aligner of another encoder or
            LLM.
    """

    def __init__(self, config: AlignConfig, device: torch.device) -> None:
        if config.bf16 is None:
            config = replace(config, bf16=bf16_is_fast(device))
        elif config.bf16:
            warn_of_slow_bf16("bf16", device)
        self.config, self.device = config, device
        self.encoder_source = resolve(config.encoder, revision=config.encoder_revision)
        self.llm_source = resolve(config.llm, revision=config.llm_revision)
        start = None if config.start_from is None else aligner_folder(config.start_from)
        self._loaded = None if start is None else load_aligner(start)
        if self._loaded is not None:
            self._check_partners(self._loaded.config)
        task = None if config.task is None else read_task(config.task)
        if task is not None:
            self._warm_up(task)
        self._load_partners()
        self._read_data(task)
        torch.manual_seed(config.seed)
        self.aligner = self._loaded or self._new_aligner()
        if config.guided_training and not self.aligner.config.guidance:
            raise errors.bad("guidance", "be above 0 for `guided_training`", 0.0)
        self.model = AlignmentModel(
            SoftPrompt.build(self.aligner, self.llm, self.tokenizer),
            with_lora(self.llm, config, start),
            noise=config.noise,
            mix_share=config.mix_share,
            guided=self.aligner if config.guided_training else None,
            offered=OfferedWords.of(self.aligner, self.llm, self.tokenizer, config.offered_share),
        ).to(device)
        if start is not None:
            load_lora(self.model.llm, start)
        self.batches = TokenBudgetBatches(
            self.sentences,
            self.embeddings,
            self.tokenizer,
            prompt_length=self.model.prompt.length,
            batch_tokens=config.batch_tokens,
            end_id=int(self.tokenizer.eos_token_id),
            seed=config.seed,
        )
        runtime.log(f"{len(self.sentences)} sentences in {len(self.batches)} batches")

    def claim_stage(self, stage: StageConfig) -> None:
        """Refuse a stage's folder that was trained with other settings; see `settings.claim`."""
        found = {
            "encoder": fingerprint(self.encoder_source),
            "llm": fingerprint(self.llm_source),
            "sentences": digest([*self.held_out, *self.sentences]),
        }
        for name in ("start_from", "lexicon_from"):
            given = getattr(self.config, name)
            if given is not None:
                found[name] = file_sha256(aligner_folder(given) / "model.safetensors")[:16]
        folder = Path(self.config.output_dir) / stage.name
        claim(folder, stage_settings(self.config, stage, found))

    def _check_partners(self, other: AlignerConfig) -> None:
        check_partner("encoder", other.encoder_fingerprint, self.encoder_source)
        check_partner("LLM", other.llm_fingerprint, self.llm_source)

    def save_trained(self, folder: Path) -> None:
        """Write what has been trained so far, for a later run that skips this stage.

        Every process has to call it.
        """
        self.save(folder / "aligner", dtype=torch.float32)

    def save(self, folder: Path, card: ModelCard | None = None, **settings: Any) -> None:
        """Write the aligner; every process has to call it, and the main process writes."""
        write = runtime.is_main_process()
        save_checkpoint(folder, self.aligner, self.model.llm, card, write=write, **settings)

    def load_trained(self, folder: Path) -> None:
        """Take the weights of a finished stage."""
        saved = folder / "aligner"
        self.aligner.load_state_dict(load_aligner(saved).state_dict())
        load_lora(self.model.llm, saved)

    def _warm_up(self, task: LabelledTexts) -> None:
        """From here on, the encoder is the one that has seen the task."""
        config = self.config
        assert config.task is not None and self._loaded is not None  # the config's promise
        folder = warm_up(
            self.encoder_source,
            task,
            config.task,
            Path(config.output_dir) / "encoder",
            seed=config.seed,
            use_cpu=config.use_cpu,
        )
        self.encoder_source = resolve(str(folder))
        self._loaded.config.encoder = str(folder)
        self._loaded.config.encoder_revision = None
        self._loaded.config.encoder_fingerprint = fingerprint(self.encoder_source)

    def _load_partners(self) -> None:
        config = self.config
        shape = config if self._loaded is None else self._loaded.config
        self.encoder = FrozenEncoder.from_pretrained(
            self.encoder_source.path,
            device=self.device,
            pooling=shape.pooling,
            normalize=shape.normalize,
            prefix=shape.encoder_prefix,
        )
        self.llm = load_llm(
            self.llm_source.path,
            # "none" is bf16 weights on the 4-bit grid: the same numbers, faster to train.
            quantization=config.quantization,
            dtype=torch.bfloat16 if config.bf16 else torch.float32,
            device=self.device,
            base_grid=shape.base_grid,
        )
        if self.device.type == "cpu":
            # For sentences this short the fused kernel's backward pass is the slower one there.
            self.llm.set_attn_implementation("eager")
        self.tokenizer = load_tokenizer(self.llm_source.path)
        self.end_ids = end_ids(self.tokenizer, self.llm)

    def _new_aligner(self) -> Aligner:
        config, known = self.config, self._known_lexicon()
        prefix, suffix = prompt_texts(
            self.tokenizer, config.prompt_prefix, config.prompt_suffix, chat=config.prompt_chat
        )
        aligner = Aligner(
            AlignerConfig(
                encoder=config.encoder,
                encoder_revision=self.encoder_source.revision,
                encoder_fingerprint=fingerprint(self.encoder_source),
                pooling=config.pooling,
                normalize=config.normalize,
                encoder_prefix=config.encoder_prefix,
                embedding_dim=self.encoder.embedding_dim,
                llm=config.llm,
                llm_revision=self.llm_source.revision,
                llm_fingerprint=fingerprint(self.llm_source),
                llm_dim=self.llm.get_input_embeddings().weight.shape[1],
                base_grid=config.base_grid,
                num_soft_tokens=config.num_soft_tokens,
                projector_width=config.projector_width,
                num_hints=config.num_hints,
                lexicon_words=self._num_words(known),
                lexicon_width=config.lexicon_width if known is None else known.up.out_features,
                lexicon_rank=config.lexicon_rank if known is None else known.words.in_features,
                embedding_rms=input_rms(self.llm),
                guidance=config.guidance,
                prompt_prefix=prefix,
                prompt_suffix=suffix,
            )
        )
        if aligner.hints is not None and known is not None:
            aligner.hints.lexicon.load_state_dict(known.state_dict())
        elif aligner.hints is not None and self.words is not None:
            aligner.hints.lexicon.set_words(
                self.words.token_ids, self.words.sentence_counts, config.lexicon_common
            )
        return aligner

    def _known_lexicon(self) -> Lexicon | None:
        """The one `lexicon_from` names; of the same encoder and LLM."""
        if self.config.lexicon_from is None:
            return None
        other = load_aligner(aligner_folder(self.config.lexicon_from))
        self._check_partners(other.config)
        if other.hints is None:
            raise errors.bad(
                "lexicon_from", "name an aligner with a lexicon", self.config.lexicon_from
            )
        return other.hints.lexicon

    def _num_words(self, known: Lexicon | None) -> int:
        if known is not None:
            return len(known.token_ids)
        return 0 if self.words is None else len(self.words.token_ids)

    def _read_data(self, task: LabelledTexts | None) -> None:
        """Held-out sentences first, then those for generation, then those for the lexicon.

        With a task, its texts take the place of most that are for generation.
        """
        config = self.config
        extra = config.lexicon_sentences if config.trains_lexicon else 0
        sentences = read_sentences(
            config.data,
            text_column=config.text_column,
            min_words=config.min_words,
            max_words=config.max_words,
            limit=config.max_sentences + extra,
        )
        self.held_out = sentences[: config.holdout]
        rest = sentences[config.holdout :]
        # Too few for both: the same share for each as was asked for.
        share = config.max_sentences / (config.max_sentences + extra)
        cut = min(config.max_sentences - config.holdout, max(1, round(share * len(rest))))
        self.sentences = rest[:cut]
        if task is not None and config.task is not None:
            share = config.task.unlabelled_share
            self.sentences = task.texts + rest[: min(cut, round(len(task) * share / (1 - share)))]
        self.sentences, self.embeddings = self._joined(self.sentences)
        self.words: WordBatches | None = None
        if config.trains_lexicon:
            known = None if self._loaded is None else self._loaded.hints
            self.words = WordBatches(
                *self._joined(rest[cut:]),
                self.tokenizer,
                num_words=config.lexicon_words,
                token_ids=None if known is None else known.lexicon.token_ids,
                seed=config.seed,
            )

    def _joined(self, sentences: list[str]) -> tuple[list[str], StackedRows | np.ndarray]:
        config, embeddings = self.config, self._embed(sentences)
        return with_joined(sentences, embeddings, config.joined_share, config.seed, self._embed)

    def _embed(self, sentences: list[str]) -> np.ndarray:
        encoder_fingerprint = fingerprint(self.encoder_source)
        cache = Path(self.config.cache_dir or Path(self.config.output_dir) / "cache")
        given = sentences, self.encoder, encoder_fingerprint, cache
        if runtime.is_main_process():
            cached_embeddings(*given, bf16=bool(self.config.bf16))
        runtime.wait_for_everyone()
        return cached_embeddings(*given, bf16=bool(self.config.bf16))


def read_task(config: TaskConfig) -> LabelledTexts:
    """The labelled texts of stage 2."""
    return read_table(config.file, config.text_column, config.label_column)
