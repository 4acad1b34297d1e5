"""Alignment from a config: load the partners, read the data, run the stages, save the aligner."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelCard
from transformers import (
    AutoTokenizer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from mixup_hf import distributed
from mixup_hf.align import fidelity, text_scores
from mixup_hf.align.data import (
    TokenBudgetBatches,
    WordBatches,
    cached_embeddings,
    read_sentences,
)
from mixup_hf.align.objective import AlignmentModel
from mixup_hf.align.stages import train_generation, train_lexicon
from mixup_hf.config import AlignConfig, StageConfig
from mixup_hf.encoders import FrozenEncoder
from mixup_hf.inverter.checkpoint import Aligner, AlignerConfig, fingerprint, save_checkpoint
from mixup_hf.inverter.generation import DecodeSettings, decode
from mixup_hf.inverter.model_card import aligner_card
from mixup_hf.inverter.prompting import SoftPrompt, end_ids
from mixup_hf.inverter.quantization import load_llm
from mixup_hf.inverter.sources import resolve


def align(config: AlignConfig) -> Path:
    """Train an aligner and write it to `output_dir/aligner`.

    Killed and started again with the same config, it goes on from the last checkpoint. Finished
    stages are not repeated.

    Returns:
        The folder of the aligner checkpoint.
    """
    output = Path(config.output_dir)
    device = torch.device("cpu") if config.use_cpu else distributed.local_device()
    session = _Session(config, device)
    for stage in config.stages:
        finished = output / stage.name / "finished.json"
        if finished.is_file():
            session.load_trained(output / stage.name)
            distributed.log(f"stage {stage.name} is finished already")
            continue
        distributed.log(f"stage {stage.name}: {config.stage_minutes(stage):.0f} minutes")
        session.run(stage)
        session.save_trained(output / stage.name)
        if distributed.is_main_process():
            finished.write_text(json.dumps(session.reconstruct(), indent=2))
        distributed.wait_for_everyone()
    folder = output / "aligner"
    if distributed.is_main_process():
        save_checkpoint(folder, session.aligner, session.model.llm, session.card(output))
        distributed.log(f"aligner written to {folder}")
    return folder


class _Session:
    """Everything one alignment run holds."""

    def __init__(self, config: AlignConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        encoder_source = resolve(config.encoder, revision=config.encoder_revision)
        llm_source = resolve(config.llm, revision=config.llm_revision)
        self.encoder = FrozenEncoder.from_pretrained(
            encoder_source.path,
            device=device,
            pooling=config.pooling,
            normalize=config.normalize,
        )
        llm = load_llm(
            llm_source.path,
            # bf16 weights on the 4-bit grid: the same numbers, faster to train.
            quantization="none",
            dtype=torch.bfloat16 if config.bf16 else torch.float32,
            device=device,
            base_grid=config.base_grid,
        )
        if device.type == "cpu":
            # For sentences this short the fused kernel's backward pass is the slower one there.
            llm.set_attn_implementation("eager")
        self.tokenizer = AutoTokenizer.from_pretrained(llm_source.path)
        self.end_ids = end_ids(self.tokenizer, llm)
        self._read_data(fingerprint(encoder_source))
        table = llm.get_input_embeddings().weight
        torch.manual_seed(config.seed)
        self.aligner = Aligner(
            AlignerConfig(
                encoder=config.encoder,
                encoder_revision=encoder_source.revision,
                encoder_fingerprint=fingerprint(encoder_source),
                pooling=config.pooling,
                normalize=config.normalize,
                embedding_dim=self.encoder.embedding_dim,
                llm=config.llm,
                llm_revision=llm_source.revision,
                llm_fingerprint=fingerprint(llm_source),
                llm_dim=table.shape[1],
                base_grid=config.base_grid,
                num_soft_tokens=config.num_soft_tokens,
                projector_width=config.projector_width,
                num_hints=config.num_hints,
                lexicon_words=0 if self.words is None else len(self.words.token_ids),
                lexicon_width=config.lexicon_width,
                lexicon_rank=config.lexicon_rank,
                embedding_rms=float(table.float().square().mean().sqrt()),
                prompt_prefix=config.prompt_prefix,
                prompt_suffix=config.prompt_suffix,
            )
        )
        if self.words is not None and self.aligner.hints is not None:
            self.aligner.hints.lexicon.set_words(
                self.words.token_ids, self.words.sentence_counts, config.lexicon_common
            )
        prompt = SoftPrompt.build(self.aligner, llm, self.tokenizer)
        self.model = AlignmentModel(prompt, _with_lora(llm, config)).to(device)
        self.batches = TokenBudgetBatches(
            self.sentences,
            self.embeddings,
            self.tokenizer,
            prompt_length=prompt.length,
            batch_tokens=config.batch_tokens,
            end_id=int(self.tokenizer.eos_token_id),
            seed=config.seed,
        )
        distributed.log(f"{len(self.sentences)} sentences in {len(self.batches)} batches")

    def _read_data(self, encoder_fingerprint: str) -> None:
        """Held-out sentences first, then those for generation, then those for the lexicon."""
        config = self.config
        extra = config.lexicon_sentences if config.num_hints else 0
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
        self.embeddings = self._embed(self.sentences, encoder_fingerprint)
        self.words: WordBatches | None = None
        if config.num_hints:
            self.words = WordBatches(
                rest[cut:],
                self._embed(rest[cut:], encoder_fingerprint),
                self.tokenizer,
                num_words=config.lexicon_words,
                seed=config.seed,
            )

    def _embed(self, sentences: list[str], encoder_fingerprint: str) -> np.ndarray:
        cache = Path(self.config.output_dir) / "cache"
        if distributed.is_main_process():
            # In bf16 an embedding keeps a cosine of 0.9999 to itself, at 1.6 times the speed.
            with torch.autocast(self.device.type, torch.bfloat16, self.config.bf16):
                cached_embeddings(sentences, self.encoder, encoder_fingerprint, cache)
        distributed.wait_for_everyone()
        return cached_embeddings(sentences, self.encoder, encoder_fingerprint, cache)

    def run(self, stage: StageConfig) -> None:
        """Train one stage."""
        if stage.train_lexicon:
            assert self.words is not None and self.aligner.hints is not None  # the config's promise
            train_lexicon(self.aligner.hints.lexicon, self.words, self.config, stage, [])
        else:
            train_generation(self.model, self.batches, self.config, stage, [HeldOut(self)])

    def reconstruct(self) -> dict[str, Any]:
        """Invert held-out sentences greedily; measure the round trip; keep a few to look at."""
        sources = self.held_out[: self.config.eval_sentences]
        embeddings = self.encoder.encode(sources)
        device = self.model.prompt.projector.gain.device
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, self.config.bf16):
            tokens = decode(
                self.model.base,
                self.model.prompt(embeddings.to(device)),
                end_ids=self.end_ids,
                settings=DecodeSettings(temperature=0.0),
            )
        self.model.train(was_training)
        texts = [text.strip() or "." for text in self.tokenizer.batch_decode(tokens)]
        return {
            "cosine": fidelity.mean_cosine(self.encoder.encode(texts), embeddings),
            "token_f1": text_scores.mean_token_f1(texts, sources),
            "samples": list(zip(sources[:5], texts[:5], strict=True)),
        }

    def card(self, output: Path) -> ModelCard:
        """The model card, from the config and the figures at the end of the last stage."""
        config = self.config
        last = json.loads((output / config.stages[-1].name / "finished.json").read_text())
        samples = last.pop("samples")
        stages = ", ".join(
            f"{each.name} {config.stage_minutes(each):.0f} min" for each in config.stages
        )
        training = {
            "data": f"{self.batches.num_sentences} sentences of {config.data}",
            "stages": stages,
            "batch": f"{config.batch_tokens} positions per process",
            "processes": distributed.world_size(),
            "seed": config.seed,
            "mixup_hf": version("mixup_hf"),
        }
        measured = {
            f"{name} on {config.eval_sentences} held-out": value for name, value in last.items()
        }
        return aligner_card(
            self.aligner.config,
            name="path/to/this/folder",
            training=training,
            figures=measured,
            samples=samples,
            words=f"{config.min_words} to {config.max_words}",
        )

    def save_trained(self, folder: Path) -> None:
        """Write what has been trained so far, for a later run that skips this stage."""
        if distributed.is_main_process():
            save_checkpoint(folder / "aligner", self.aligner, self.model.llm, dtype=torch.float32)

    def load_trained(self, folder: Path) -> None:
        """Take the weights of a finished stage."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        from mixup_hf.inverter.checkpoint import LORA_FOLDER, load_aligner

        saved = folder / "aligner"
        self.aligner.load_state_dict(load_aligner(saved).state_dict())
        lora = load_file(saved / LORA_FOLDER / "adapter_model.safetensors")
        set_peft_model_state_dict(self.model.llm, lora)


class HeldOut(TrainerCallback):
    """Logs held-out reconstruction, with sentences to read, every `eval_steps`."""

    def __init__(self, session: _Session) -> None:
        self.session = session

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Reconstruct and log, on the main process."""
        if state.global_step % self.session.config.eval_steps or not state.is_world_process_zero:
            return
        result = self.session.reconstruct()
        lines = [f"    {source!r} -> {text!r}" for source, text in result["samples"]]
        distributed.log(
            f"step {state.global_step}: held-out cosine {result['cosine']:.3f}, "
            f"token F1 {result['token_f1']:.3f}\n" + "\n".join(lines)
        )


def _with_lora(llm: Any, config: AlignConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    wrapped: Any = get_peft_model(llm, lora)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()  # bf16 is too coarse for small updates
    if config.bf16:
        for module in wrapped.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                # Autocast chooses the type of every product; peft's own cast to float32 would
                # only move memory.
                module.cast_input_dtype_enabled = False
    return wrapped
