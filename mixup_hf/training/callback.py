"""The callback: installs mixing on the train loader, keeps the pool filled, saves and restores.

One epoch, as the Trainer runs it:

    on_train_begin   MixingCollator put on the train loader only; loss hooks put on the model
    on_epoch_begin   rows of the first batches made, in the main process, before workers start
    batch 0, 1, ...  the collator reads the pool; hooks take out soft labels, make the loss
    on_step_end      rows made that the next step's batches may ask for
    on_save          the rows made so far are linked into the checkpoint
    on_train_end     loader and model are as they were
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mixup_hf import runtime
from mixup_hf.training.auto_off import DevelopmentWatch
from mixup_hf.training.checkpointing import (
    RUN_FOLDER,
    Saved,
    checkpoint_folder,
    resume,
    write_checkpoint,
)
from mixup_hf.training.checks import RowContract
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.contrastive import NO_CONTRAST, Contrast, check_contrastive
from mixup_hf.training.curriculum import CONSTANT, RealRows, parse_curriculum
from mixup_hf.training.loss_hooks import SoftLabelHooks
from mixup_hf.training.mixing_collator import Installed, MixingCollator, SeenRows
from mixup_hf.training.pool import NEVER, MixupPool
from mixup_hf.training.refill import Refiller
from mixup_hf.training.rehearsal import Rehearsal
from mixup_hf.training.row_pieces import background_of
from mixup_hf.training.schedule import Lookahead, Schedule, schedule_of, start_of
from mixup_hf.training.unsupported import check_refills, check_training, refuse_unwatchable
from mixup_hf.training.usage import RowUsage
from mixup_hf.types import Begins, Follows, MixedExample, Supplies


class MixupCallback(TrainerCallback):
    """Makes a `MixupCollator` mix during training.

    Args:
        collator: The collator given to the same Trainer.
        producer: Makes the generated rows, or has them.
        seed: Seed of the order in which rows are used again when there are too few.
        rows_per_refill: Generated rows of a refill. Default: what its epochs use.
        refill_every: Epochs per refill; 0 keeps the rows of the first one.
        contract: Compares the Trainer's rows and classes with the producer's, when training begins.
        class_weights: Weights of the classes (C,) in the loss.
        curriculum: When in the run generated rows are used, see `training.curricula`.
        fill: Training rows in the place of those that the curriculum leaves out. Default: none.
        contrast: The contrastive term in the loss. Default: none.
        rehearsal: Makes the committee's copy of the model, when training begins.
        starts: What gives the model a better start, in this order, after that.
        settings: What the run depends on; stored with checkpoints and compared on resume.
        follower: Keeps the producer's inverter in step with the model.
        warmup_epochs: Epochs before anything is mixed.
        background: Decode in a thread during training.
        auto_off: Stop mixing when the development set shows that the model gets worse.
        start_line: Printed when training begins.
        on_failure: When rows cannot be made: `stop`, or warn and take `real_rows` for this epoch.
    """

    def __init__(
        self,
        collator: MixupCollator,
        producer: Supplies,
        *,
        seed: int = 0,
        rows_per_refill: int | None = None,
        refill_every: int = 1,
        settings: dict[str, Any] | None = None,
        follower: Follows | None = None,
        warmup_epochs: int = 0,
        background: bool = False,
        auto_off: bool = False,
        on_failure: str = "stop",
        contract: RowContract | None = None,
        class_weights: Tensor | None = None,
        curriculum: str = CONSTANT,
        fill: RealRows | None = None,
        contrast: Contrast = NO_CONTRAST,
        start_line: str | None = None,
        rehearsal: Rehearsal | None = None,
        starts: Sequence[Begins] = (),
    ) -> None:
        check_refills(refill_every, rows_per_refill, warmup_epochs, on_failure)
        check_contrastive(contrast.weight, collator.problem_type, collator.label_format)
        self.collator, self.producer, self.seed = collator, producer, seed
        self.rows_per_refill, self.refill_every = rows_per_refill, refill_every
        # As a checkpoint will hold them: JSON knows no tuples, and they are compared on resume.
        self.settings = json.loads(json.dumps(settings or {}))
        self.follower = follower
        self.warmup_epochs, self.auto_off, self.on_failure = warmup_epochs, auto_off, on_failure
        self.contract, self.class_weights = contract, class_weights
        self.fill, self.start_line = fill, start_line
        self.curriculum = parse_curriculum(curriculum)
        self._contrast, self.rehearsal, self.starts = contrast, rehearsal, starts
        self.attached = self.own_loss = False  # `attach` sets: smoother is ours, loss is the user's
        self._background = background_of(producer) if background else None
        self.pool: MixupPool | None = None
        self._usage: RowUsage | None = None
        self._refiller: Refiller | None = None
        self._hooks: SoftLabelHooks | None = None
        self._installed: Installed | None = None
        self._epoch = self._skipped = 0  # batches that a resume skips in its first epoch
        self._saved: Saved | None = None
        self._watch: DevelopmentWatch | None = None
        self._off = False

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the collator know that a Trainer has its callback."""
        self.collator.has_callback = True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Install mixing on the train loader and the loss on the model."""
        self._uninstall()  # an interrupted run has had no on_train_end
        self.collator.has_callback = True
        if self._background is not None:
            self._background.stop()
        self.pool, self._usage, self._off = None, None, False
        acts = self.collator.mix_ratio or self._contrast.weight or self.starts
        weighs = self.class_weights is not None
        if not (acts or weighs):
            return  # the plain Trainer, bit for bit
        loader, model = kwargs["train_dataloader"], kwargs["model"]
        check_training(
            args, loader, model, self.collator, self.contract, attached=self.attached, weighs=weighs
        )
        for each in (self.rehearsal, *self.starts):
            if each is not None:
                each.begin(model, SeenRows(loader), args, state)
        self.pool = MixupPool(Path(str(args.output_dir)) / RUN_FOLDER / "pool", self.seed)
        self._usage = RowUsage(self.pool)
        if self.auto_off:
            refuse_unwatchable(args, self.collator.label_format)
            self._watch = DevelopmentWatch(model, self.collator.problem_type)
        self._refiller = self._new_refiller(args, state, loader, self.pool)
        self._restore(args, state, self._refiller.schedule)
        self.collator.label_smoothing = args.label_smoothing_factor
        self._hooks = SoftLabelHooks(
            model,
            self.collator.label_format,
            on_rows=self._usage.count,
            problem_type=self.collator.problem_type,
            class_weights=self.class_weights,
            contrast=self._contrast,
            on_losses=self._usage.count_losses,
            own_loss=self.own_loss,
        )
        self._hooks.install()
        if self.start_line is not None:
            runtime.announce(self.start_line)
        steps = state.global_step, state.max_steps
        done, skipped = start_of(loader, *steps, args.gradient_accumulation_steps)
        self._epoch, self._skipped = done - 1, 0 if args.ignore_data_skip else skipped
        mixing = MixingCollator(self.collator, self.pool, self._refiller.schedule, self.fill)
        self._installed = Installed(loader, mixing)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the rows of the first batches; the loader's workers start after this."""
        if self.pool is None or self._refiller is None:
            return
        self._epoch += 1
        if self.contract is not None:
            self.contract.check_again(kwargs["train_dataloader"].dataset)  # labels may have changed
        first, self._skipped = self._skipped, 0
        mixing_epoch = self._epoch - self.warmup_epochs
        if mixing_epoch < 0:
            return  # nothing has been published, so nothing is drawn
        stop_batch = 0 if self._off else NEVER
        if self._saved is not None and self._saved.epoch == mixing_epoch:
            stop_batch = self._saved.stop_batch  # mixing stopped within the epoch that is resumed
        left = state.max_steps - state.global_step
        self._refiller.begin_epoch(mixing_epoch, first, kwargs["model"], left, stop_batch)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the rows that the next step's batches may draw."""
        if self._refiller is not None and not self._off:
            self._refiller.end_step(state.max_steps - state.global_step)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise, before any weight changes, if the soft labels are not what is trained on."""
        if self._hooks is not None:
            self._hooks.require_gradient()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add what was generated to the Trainer's logs and history."""
        if self._refiller and self._usage and "loss" in kwargs["logs"]:
            figures = self._refiller.figures() | self._usage.figures()
            for each in (kwargs["logs"], state.log_history[-1]):
                each.update(figures)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """With `auto_off`, stop mixing once the model has become worse on the development set."""
        if self._watch is None or self._off or self._refiller is None:
            return
        found = self._watch.judge(kwargs["metrics"])
        if found is not None:
            self._off = True
            self._refiller.stop()
            runtime.warn(
                f"`auto_off` has stopped mixing at step {state.global_step}: {found}. Training "
                "goes on with real rows."
            )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the rows made so far, and how often each was used, into the checkpoint."""
        if self.pool is None or self._usage is None or self._refiller is None:
            return
        used = runtime.total(self._usage.used)  # every process takes part
        if not runtime.is_main_process():
            return
        settings = self.settings | self._refiller.schedule.settings
        watch, now = {} if self._watch is None else self._watch.state(), self.pool.state
        saved = Saved(settings, used, now.epoch, now.stop_batch, self._off, watch)
        folder = checkpoint_folder(args, state)
        write_checkpoint(folder, saved, self.pool, (self.follower, self.rehearsal))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave loader and model as they were."""
        if self._background is not None:
            self._background.stop()
        if self._refiller is not None:
            self._refiller.report()
        if self._usage is not None:
            self._usage.used = runtime.total(self._usage.used)
        self._uninstall()

    def used_rows(self) -> list[tuple[MixedExample, int]]:
        """Every generated row trained on, and how often; until the end, of this process."""
        return [] if self._usage is None else self._usage.rows()

    def _new_refiller(
        self, args: TrainingArguments, state: TrainerState, loader: Any, pool: MixupPool
    ) -> Refiller:
        lookahead = Lookahead.of(loader, args.gradient_accumulation_steps)
        schedule = schedule_of(
            loader,
            mix_ratio=self.collator.mix_ratio,
            refill_every=self.refill_every,
            batch_size=args.train_batch_size,
            rows=len(self.producer.texts),
        )
        return Refiller(
            self.producer,
            pool,
            schedule.over(self.curriculum, lookahead.taken(state.max_steps), self.warmup_epochs),
            lookahead,
            rows_per_refill=self.rows_per_refill,
            follower=self.follower,
            background=self._background,
            may_fail=self.on_failure == "real_rows" and runtime.world_size() == 1,
        )

    def _restore(self, args: TrainingArguments, state: TrainerState, schedule: Schedule) -> None:
        """Go on from the checkpoint, if this is a resume."""
        assert self.pool is not None and self._usage is not None
        self._saved = saved = resume(self.pool, self.settings | schedule.settings, args, state)
        if saved is None:
            return
        if self._watch is not None and saved.watch:
            self._off = saved.off
            self._watch.load(saved.watch)
        if self.follower is not None:
            self.follower.load(checkpoint_folder(args, state))
        self._usage.restore(saved.used)

    def _uninstall(self) -> None:
        for each in (self._hooks, self._watch, self._installed):
            if each is not None:
                each.remove()
        self._hooks = self._watch = self._installed = self._refiller = None
