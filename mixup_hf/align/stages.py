"""The alignment stages, one function each: what is frozen, the loss and the data.

Stage 0 (ours): the lexicon is trained on unlabeled text with a bag-of-words loss, to predict the
words of a sentence from its embedding. Only the lexicon is trained; the LLM is not run at all.

Stage 1 (arXiv 2601.21543): `L_GEN` on unlabeled text. The encoder and the LLM are frozen. Trains
the projector alone (1a) or together with a LoRA on the LLM (1b), because a fully frozen small LLM
cannot decode a foreign embedding well. Stage 2: the same on the task's labeled texts, embedded by
an encoder that has been warmed up on them (`warmup`). Stage 3: a short refresh of the projector
while the encoder continues to train.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from mixup_hf import errors, runtime
from mixup_hf.align.speed import Throughput
from mixup_hf.config import AlignConfig, StageConfig
from mixup_hf.inverter.batches import TokenBudgetBatches, WordBatches, unwrap
from mixup_hf.inverter.lexicon import Lexicon
from mixup_hf.inverter.objective import AlignmentModel, LexiconModel
from mixup_hf.inverter.refinement import parameter_groups, rate_factor, set_trainable
from mixup_hf.training.checkpointing import last_finished

_CLOCK_FILE = "stage_clock.json"
_WEIGHTS = "model.safetensors"


def train_lexicon(
    lexicon: Lexicon,
    batches: WordBatches,
    config: AlignConfig,
    stage: StageConfig,
) -> int:
    """Stage 0: train the lexicon to predict the words of sentences from their embeddings.

    Frozen: everything else; the LLM is not run. Loss: softmax over words. Data: sentences that
    no other stage sees, so that hints on the LLM's training sentences are no better than on new
    ones.
    """
    model = LexiconModel(lexicon.requires_grad_(True), config.lexicon_mix_share)
    groups = [{"params": list(lexicon.parameters()), "lr": stage.projector_lr}]
    steps = min(stage.max_steps, config.lexicon_epochs * len(batches))
    done = _train(model, batches, config, replace(stage, max_steps=steps), groups, [])
    lexicon.requires_grad_(False)
    return done


def train_generation(
    model: AlignmentModel,
    batches: TokenBudgetBatches,
    config: AlignConfig,
    stage: StageConfig,
    callbacks: list[TrainerCallback],
) -> int:
    """Stages 1a, 1b and 2: train projector and LoRA to decode a sentence from its embedding.

    Frozen: the encoder (its embeddings are precomputed), the LLM's base weights, the lexicon, and
    the projector or LoRA if the stage does not train it. Loss: `L_GEN`. Data: `batches`.
    """
    if stage.max_epochs is not None:
        steps = math.ceil(stage.max_epochs * len(batches) / runtime.world_size())
        stage = replace(stage, max_steps=min(stage.max_steps, steps))
    set_trainable(model, projector=stage.train_projector, lora=stage.train_lora)
    groups = parameter_groups(model, stage.projector_lr, stage.lora_lr)
    return _train(model, batches, config, stage, groups, callbacks)


def _train(
    model: torch.nn.Module,
    batches: TokenBudgetBatches | WordBatches,
    config: AlignConfig,
    stage: StageConfig,
    groups: list[dict[str, Any]],
    callbacks: list[TrainerCallback],
) -> int:
    """Train one stage within its time budget, resuming if possible; return its step count."""
    folder = Path(config.output_dir) / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    clock = StageClock(config.stage_minutes(stage), stage)
    optimizer = AdamW(groups, weight_decay=0.0, fused=True)
    trainer = Trainer(
        model=model,
        args=_arguments(config, stage, folder),
        train_dataset=batches,
        data_collator=unwrap,
        optimizers=(optimizer, LambdaLR(optimizer, clock.rate_factor)),
        callbacks=[clock, Throughput(model, batches), *callbacks],
    )
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version != 2:
        raise errors.bad(
            "fsdp_version",
            "be 2",
            plugin.fsdp_version,
            "FSDP 1 cannot gather weights between steps. See recipes/accelerate_configs/fsdp.yaml.",
        )
    checkpoint = last_finished(folder, _CLOCK_FILE)
    if checkpoint is not None and (done := _done(Path(checkpoint))) is not None:
        # Resumed after its last step, a Trainer would take another one.
        model.load_state_dict(load_file(Path(checkpoint) / _WEIGHTS))
        return done
    trainer.train(resume_from_checkpoint=checkpoint)
    return int(trainer.state.global_step)


def _done(checkpoint: Path) -> int | None:
    """The steps of a stage that ended with this checkpoint; None if it did not, or is sharded."""
    clock = json.loads((checkpoint / _CLOCK_FILE).read_text())
    if clock["progress"] < 1 or not (checkpoint / _WEIGHTS).is_file():
        return None
    return int(json.loads((checkpoint / "trainer_state.json").read_text())["global_step"])


class StageClock(TrainerCallback):
    """Tracks a stage's time budget across resumes, sets the learning rate and ends the stage.

    Args:
        minutes: The budget; time spent before a resume counts toward it.
        stage: Provides the step limit, warm-up and decay.
    """

    def __init__(self, minutes: float, stage: StageConfig) -> None:
        self.seconds = minutes * 60
        self.stage = stage
        self.spent_before = 0.0
        self.started: float | None = None
        self.progress = 0.0

    def rate_factor(self, step: int) -> float:
        """Learning rate at `step` relative to its peak."""
        stage = self.stage
        return rate_factor(
            step,
            self.progress,
            warmup_steps=stage.warmup_steps,
            decay_share=stage.decay_share,
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock; when resuming, continue from the time already spent."""
        saved = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / _CLOCK_FILE
        if state.global_step and saved.is_file():
            content = json.loads(saved.read_text())
            self.spent_before, self.progress = content["seconds"], content["progress"]
        self.started = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Update the progress, and end the stage when its time or steps are used up."""
        by_time = self._spent() / self.seconds
        # All ranks follow the main process's clock so that learning rate and stop stay in sync.
        self.progress = runtime.agree(max(by_time, state.global_step / self.stage.max_steps))
        if self.progress >= 1.0:
            control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the time spent to the checkpoint."""
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            content = {"seconds": self._spent(), "progress": self.progress}
            (folder / _CLOCK_FILE).write_text(json.dumps(content))

    def _spent(self) -> float:
        running = 0.0 if self.started is None else time.monotonic() - self.started
        return self.spent_before + running


def _arguments(config: AlignConfig, stage: StageConfig, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,  # an item is a whole batch
        max_steps=stage.max_steps,
        max_grad_norm=config.max_grad_norm,
        bf16=bool(config.bf16),
        use_cpu=config.use_cpu or not torch.cuda.is_available(),
        logging_steps=config.log_steps,
        save_steps=config.save_steps,
        save_total_limit=2,  # the last one may be killed while it is being saved
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
        report_to=[],
        seed=config.seed,
        ddp_find_unused_parameters=False,
    )
