"""Alignment from a config: load the models, read the data, run the stages, save the aligner."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mixup_hf import runtime
from mixup_hf.align.ratio_curve import NoResponseError, fit_ratio_curve
from mixup_hf.align.session import Session
from mixup_hf.align.sharding import gathered
from mixup_hf.align.stages import train_generation, train_lexicon
from mixup_hf.config import AlignConfig, StageConfig
from mixup_hf.evaluation import fidelity, text_scores
from mixup_hf.inverter.batches import TokenBudgetBatches
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.inverter.engines.transformers import TransformersEngine
from mixup_hf.inverter.model import Inverter
from mixup_hf.inverter.model_card import aligner_card
from mixup_hf.inverter.refinement import generation_loss
from mixup_hf.inverter.sampling import decode


def align(config: AlignConfig) -> Path:
    """Train an aligner and write it to `output_dir/aligner`.

    If the run is interrupted and restarted with the same config, it resumes from the last
    checkpoint. Finished stages are not repeated.

    Returns:
        The folder of the aligner checkpoint.

    Raises:
        InvalidInput: `output_dir` contains stages trained with different settings.
    """
    output = Path(config.output_dir)
    device = torch.device("cpu") if config.use_cpu else runtime.local_device()
    session = Session(config, device)
    for stage in config.stages:
        _finish(session, stage)
    if config.ratio_pairs:
        try:
            session.aligner.config.ratio_curve = _ratio_curve(session)
        except NoResponseError as error:  # must not cost us the trained aligner
            runtime.warn(f"{error} The aligner is saved without one.")
    folder = output / "aligner"
    session.save(folder, _card(session, output) if runtime.is_main_process() else None)
    runtime.log(f"aligner written to {folder}")
    runtime.wait_for_everyone()
    return folder


def _finish(session: Session, stage: StageConfig) -> None:
    """Train a stage, or load it if an earlier run with the same settings finished it."""
    folder = Path(session.config.output_dir) / stage.name
    finished = folder / "finished.json"
    session.claim_stage(stage)
    if finished.is_file():
        session.load_trained(folder)
        runtime.log(f"stage {stage.name} was completed by an earlier run with the same settings")
        return
    runtime.log(f"stage {stage.name}: {session.config.stage_minutes(stage):.0f} minutes")
    steps = _run(session, stage)
    session.save_trained(folder)
    result = reconstruct(session) | {"steps": steps}
    if runtime.is_main_process():
        finished.write_text(json.dumps(result, indent=2))
    runtime.wait_for_everyone()


def _ratio_curve(session: Session) -> list[float]:
    """Fit the curve on held-out sentences, excluding those `reconstruct` uses if possible."""
    config = session.config
    texts = session.held_out[config.eval_sentences :] or session.held_out
    inverter = Inverter(
        session.encoder, session.aligner, session.model.llm.eval(), session.tokenizer
    )
    session.aligner.config.ratio_curve = None  # measure without an existing curve
    autocast = torch.autocast(session.device.type, torch.bfloat16, bool(config.bf16))
    with gathered(session.model), autocast:
        return fit_ratio_curve(
            inverter, session.encoder.encode(texts), num_pairs=config.ratio_pairs, seed=config.seed
        )


def _run(session: Session, stage: StageConfig) -> int:
    """Train one stage and return its number of optimizer steps."""
    aligner, words = session.aligner, session.words
    if stage.train_lexicon:
        assert words is not None and aligner.hints is not None  # guaranteed by the config
        return train_lexicon(aligner.hints.lexicon, words, session.config, stage)
    return train_generation(
        session.model, session.batches, session.config, stage, [HeldOut(session)]
    )


def reconstruct(session: Session) -> dict[str, Any]:
    """Invert held-out sentences greedily, score the round trip and keep a few samples.

    Every process must call this, because FSDP-sharded weights are gathered.
    """
    with gathered(session.model):
        return _reconstruct(session)


def _reconstruct(session: Session) -> dict[str, Any]:
    sources = session.held_out[: session.config.eval_sentences]
    embeddings = session.encoder.encode(sources)
    device = session.model.prompt.projector.gain.device
    was_training = session.model.training
    session.model.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, bool(session.config.bf16)):
        tokens = decode(
            TransformersEngine(session.model.base),
            session.model.prompt(embeddings.to(device)),
            end_ids=session.end_ids,
            settings=DecodeSettings(temperature=0.0),
        )
    session.model.train(was_training)
    texts = [text.strip() or "." for text in session.tokenizer.batch_decode(tokens)]
    return {
        "loss": held_out_loss(session, sources, embeddings),
        "cosine": fidelity.mean_cosine(session.encoder.encode(texts), embeddings),
        "token_f1": text_scores.mean_token_f1(texts, sources),
        "samples": list(zip(sources[:5], texts[:5], strict=True)),
    }


def held_out_loss(session: Session, sentences: list[str], embeddings: Tensor) -> float:
    """`L_GEN` of held-out sentences, in nats per token."""
    batches = TokenBudgetBatches(
        sentences,
        embeddings.numpy(),
        session.tokenizer,
        prompt_length=session.model.prompt.length,
        batch_tokens=session.config.batch_tokens,
        end_id=int(session.tokenizer.eos_token_id),
        seed=0,
    )
    with torch.autocast(session.device.type, torch.bfloat16, bool(session.config.bf16)):
        return generation_loss(session.model, batches)


def _card(session: Session, output: Path) -> ModelCard:
    """Build the model card from the config and the metrics at the end of the last stage."""
    config = session.config
    last = json.loads((output / config.stages[-1].name / "finished.json").read_text())
    samples = last.pop("samples")
    steps = last.pop("steps")
    stages = ", ".join(
        f"{each.name} {config.stage_minutes(each):.0f} min" for each in config.stages
    )
    training = {
        "data": f"{session.batches.num_sentences} sentences of {config.data}",
        "stages": stages,
        "steps of the last stage": steps,
        "batch": f"{config.batch_tokens} positions per process",
        "processes": runtime.world_size(),
        "seed": config.seed,
        "mixup_hf": version("mixup_hf"),
    }
    measured = {
        f"{name} on {config.eval_sentences} held-out": value for name, value in last.items()
    }
    return aligner_card(
        session.aligner.config,
        name="path/to/this/folder",
        training=training,
        figures=measured,
        samples=samples,
        words=f"{config.min_words} to {config.max_words}",
    )


class HeldOut(TrainerCallback):
    """Logs held-out reconstruction metrics and sample sentences every `eval_steps`."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Reconstruct on every process and log on the main one."""
        if state.global_step % self.session.config.eval_steps:
            return
        result = reconstruct(self.session)
        lines = [f"    {source!r} -> {text!r}" for source, text in result["samples"]]
        runtime.log(
            f"step {state.global_step}: held-out loss {result['loss']:.3f}, "
            f"cosine {result['cosine']:.3f}, token F1 {result['token_f1']:.3f}\n" + "\n".join(lines)
        )
