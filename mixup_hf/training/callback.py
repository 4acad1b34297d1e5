"""The callback: installs mixing on the train loader, refills the pool, saves and restores.

One epoch, as the Trainer runs it:

    on_train_begin   mixing() put on the train loader only; loss hooks put on the model
    on_epoch_begin   pool refilled, in the main process, before the loader's workers start
    batch 0, 1, ...  collator draws from the frozen pool; hooks take out soft labels, make the loss
    on_save          the pool's file is copied into the checkpoint
    on_epoch_end     the next refill may replace the pool
    on_train_end     loader and model are as they were
"""

from __future__ import annotations

import copy
import json
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mixup_hf import errors, runtime
from mixup_hf.data.targets import SINGLE_LABEL
from mixup_hf.generation.background import Ahead
from mixup_hf.generation.generator import Producer
from mixup_hf.judging import intrusion_report
from mixup_hf.training.auto_off import DevelopmentWatch
from mixup_hf.training.checks import RowContract, check_smoothing
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.loss_hooks import SoftLabelHooks
from mixup_hf.training.mixing_collator import MixingCollator
from mixup_hf.training.pool import PAUSED, MixupPool
from mixup_hf.types import Follows, MixedExample, Supplies

ON_FAILURE = ("stop", "real_rows")
_FOLDER = "mixup_hf"
_STATE_FILE = "state.json"


class MixupCallback(TrainerCallback):
    """Makes a `MixupCollator` mix during training.

    Everything is undone at the end of training: the same Trainer then evaluates, predicts or trains
    again as if the callback were not there.

    Args:
        collator: The collator given to the same Trainer.
        producer: Makes the mixed rows, or has them.
        seed: Seed of the draws from the pool.
        rows_per_refill: Mixed rows made at each refill. Default: what the epochs until the next
            one use.
        refill_every: Epochs between refills; 0 fills once and keeps the rows.
        contract: Compares the Trainer's rows and classes with the producer's, when training begins.
        class_weights: Weights of the classes (C,) in the loss.
        settings: What the run depends on; stored with checkpoints and compared on resume.
        follower: Keeps the producer's inverter in step with the model; None if it never moves.
        warmup_epochs: Epochs before anything is mixed.
        background: Make the rows of the next refill in a thread, while training goes on.
        auto_off: Stop mixing when the development set shows that the model gets worse.
        on_failure: What happens when rows cannot be made: `stop`, or `real_rows`: training goes on
            without mixed rows, says so, and tries again in the next epoch. Several processes
            always stop: one of them alone cannot go on.
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
    ) -> None:
        errors.at_least("warmup_epochs", warmup_epochs, 0)
        errors.one_of("on_failure", on_failure, ON_FAILURE)
        errors.at_least("refill_every", refill_every, 0, "0 fills the pool once.")
        if rows_per_refill is not None:
            errors.at_least("rows_per_refill", rows_per_refill, 1)
        self.collator = collator
        self.producer = producer
        self.seed = seed
        self.rows_per_refill = rows_per_refill
        self.refill_every = refill_every
        # As a checkpoint will hold them: JSON knows no tuples, and they are compared on resume.
        self.settings = json.loads(json.dumps(settings or {}))
        self.follower = follower
        self.warmup_epochs = warmup_epochs
        self.auto_off = auto_off
        self.on_failure = on_failure
        self.contract = contract
        self.class_weights = class_weights
        self.attached = False  # `attach` sets it: the Trainer's label smoother is then ours
        self._ahead = _ahead(producer) if background else None
        self.pool: MixupPool | None = None
        self.used: Counter[tuple[int, int]] = Counter()
        self._hooks: SoftLabelHooks | None = None
        self._loader: Any = None
        self._plain_collate: Any = None
        self._epoch = 0
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
        if self._ahead is not None:
            self._ahead.stop()
        self.pool, self._off = None, False
        self.used.clear()
        if self.collator.mix_ratio == 0:
            return  # the plain Trainer, bit for bit
        loader = kwargs["train_dataloader"]
        _refuse_unsupported(args, loader, kwargs["model"], self.collator.problem_type)
        self._require_own_collator(loader)
        check_smoothing(
            args.label_smoothing_factor,
            attached=self.attached,
            label_format=self.collator.label_format,
        )
        if self.contract is not None:
            self.contract.check(kwargs["model"], loader.dataset)
        # Counted here: over a stream without length the Trainer's own epoch never gets to 1.
        self._epoch = int(state.epoch or 0) - 1
        self.pool = MixupPool(Path(str(args.output_dir)) / _FOLDER / "pool", self.seed)
        if self.auto_off:
            _refuse_unwatchable(args, self.collator.label_format)
            self._watch = DevelopmentWatch(kwargs["model"], self.collator.problem_type)
        self._restore(args, state)
        self.collator.label_smoothing = args.label_smoothing_factor
        self._hooks = SoftLabelHooks(
            kwargs["model"],
            self.collator.label_format,
            on_rows=self._count,
            problem_type=self.collator.problem_type,
            class_weights=self.class_weights,
        )
        self._hooks.install()
        self._install_collate(loader)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refill the pool when it is time; the loader's workers start after this."""
        if self.pool is None:
            return
        self._epoch += 1
        mixing_epoch = self._epoch - self.warmup_epochs
        if mixing_epoch < 0 or self._off:
            self.pool.publish_none()
            return
        refill = self._refill_of(mixing_epoch)
        if refill != self.pool.refill:
            self._refill(refill, kwargs["model"])

    def _refill_of(self, mixing_epoch: int) -> int:
        return mixing_epoch // self.refill_every if self.refill_every else 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Work ahead."""
        self._work_ahead(state)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise, before any weight changes, if the soft labels are not what is trained on."""
        if self._hooks is not None:
            self._hooks.require_gradient()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """With `auto_off`, stop mixing once the model has become worse on the development set."""
        if self._watch is None or self._off or self.pool is None:
            return
        # Several sets are told apart by the names of their metrics.
        name = min((key for key in kwargs["metrics"] if key.endswith("_loss")), default="")
        found = self._watch.judge(name)
        if found is not None:
            self._off = True
            self.pool.publish_none()
            runtime.warn(
                f"Mixing is off from step {state.global_step} on, as `auto_off` says: {found}. "
                "Training goes on with real rows."
            )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Copy the pool's files and what was used of them into the checkpoint."""
        if self.pool is None:
            return
        used = runtime.total(self.used)  # every process takes part
        if not runtime.is_main_process():
            return
        folder = _checkpoint_folder(args, state)
        folder.mkdir(parents=True, exist_ok=True)
        counts = [(refill, at, count) for (refill, at), count in sorted(used.items())]
        content = {"refill": self.pool.refill, "settings": self.settings, "used": counts}
        if self._watch is not None:
            content |= {"off": self._off, "watch": self._watch.state()}
        (folder / _STATE_FILE).write_text(json.dumps(content))
        if self.follower is not None:
            self.follower.save(folder)
        for refill in {self.pool.refill, *(refill for refill, _ in used)} - {PAUSED}:
            source = self.pool.path(refill)
            shutil.copyfile(source, folder / source.name)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave loader and model as they were."""
        if self._ahead is not None:
            self._ahead.stop()
        if self.pool is not None:
            self.used = runtime.total(self.used)
        self._uninstall()

    def _uninstall(self) -> None:
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None
        if self._watch is not None:
            self._watch.remove()
            self._watch = None
        if self._loader is not None:
            _set_collate(self._loader, self._plain_collate)
            self._loader = None

    def used_rows(self) -> list[tuple[MixedExample, int]]:
        """Every mixed row that was trained on, and how often, in the order they were made."""
        if self.pool is None:
            return []
        pool = MixupPool(self.pool.folder, self.seed)
        result: list[tuple[MixedExample, int]] = []
        for refill in sorted({refill for refill, _ in self.used}):
            pool.publish(refill)
            rows = pool.rows()
            result += [
                (rows[at], count)
                for (made_in, at), count in sorted(self.used.items())
                if made_in == refill
            ]
        return result

    def _refill(self, refill: int, model: Any) -> None:
        assert self.pool is not None
        # Nodes without a shared disk may differ in what they have; all of them decode, or none.
        if runtime.anywhere(not self.pool.path(refill).is_file()):
            if self.follower is not None:
                self.follower.follow(model)
                self.producer.forget()
            count = self._rows_of_a_refill()
            silent = not runtime.is_main_process()
            with tqdm(total=count, desc="generating mixed sentences", disable=silent) as bar:
                rows = self._rows(refill, count, bar.update)
            if rows is None:
                self.pool.publish_none()
                return
            _log_report(rows)
            if runtime.is_local_main_process():
                self.pool.write(refill, rows)
            runtime.wait_for_everyone()
        self.pool.publish(refill)

    def _rows_of_a_refill(self) -> int:
        # Many epochs' rows decoded together cost far less than a small batch for each.
        return self.rows_per_refill or self.rows_per_epoch() * max(1, self.refill_every)

    def _rows(
        self, refill: int, count: int, on_chunk: Callable[[int], object]
    ) -> list[MixedExample] | None:
        """A refill's rows; None if they cannot be made and training is to go on all the same."""
        make = self.producer.produce if self._ahead is None else self._ahead.take
        if self.on_failure == "stop" or runtime.world_size() > 1:
            return make(refill, count, on_chunk)
        try:
            return make(refill, count, on_chunk)
        except Exception:  # whatever it is: the user asked to go on
            runtime.warn(
                f"No sentences could be made for refill {refill}: training goes on with real rows, "
                "as `on_failure` = 'real_rows' says, and they are tried again in the next epoch.\n"
                + traceback.format_exc()
            )
            return None

    def _work_ahead(self, state: TrainerState) -> None:
        """Begin with the next refill; after a step, for by then the loader's workers are forked."""
        if self._ahead is None or self._ahead.busy or self.pool is None or self.pool.refill < 0:
            return
        refill = self.pool.refill + 1
        first_epoch = self.warmup_epochs + refill * self.refill_every
        if self.refill_every and first_epoch < state.num_train_epochs:
            self._ahead.start(refill, self._rows_of_a_refill())

    def rows_per_epoch(self) -> int:
        """Mixed rows that an epoch over all training rows takes, at least one."""
        return max(1, self.collator.num_mixed(len(self.producer.texts)))

    def _count(self, positions: Tensor) -> None:
        assert self.pool is not None
        self.used.update((self.pool.refill, int(at)) for at in positions.tolist())

    def _restore(self, args: TrainingArguments, state: TrainerState) -> None:
        """On a resume, take the pool from the checkpoint; on a fresh start, forget older files."""
        assert self.pool is not None
        folder = _checkpoint_folder(args, state)
        if state.global_step == 0 or not (folder / _STATE_FILE).is_file():
            if state.global_step > 0:
                runtime.warn(
                    f"Resumed at step {state.global_step}, but {folder} holds no pool: mixed rows "
                    "are made again from the seed."
                )
            if runtime.is_local_main_process():
                shutil.rmtree(self.pool.folder, ignore_errors=True)
            runtime.wait_for_everyone()
            return
        saved = json.loads((folder / _STATE_FILE).read_text())
        changed = sorted(
            key
            for key in {*saved["settings"], *self.settings}
            if saved["settings"].get(key) != self.settings.get(key)
        )
        if changed:
            raise errors.InvalidInput(
                f"The checkpoint {folder.parent} was made with other mixup settings ({changed}). "
                "Resume with the same settings, or start into another output_dir."
            )
        if self._watch is not None and "watch" in saved:
            self._off = saved["off"]
            self._watch.load(saved["watch"])
        if self.follower is not None:
            self.follower.load(folder)
        if runtime.is_main_process():  # the checkpoint holds the sum over all processes
            self.used = Counter({(refill, at): count for refill, at, count in saved["used"]})
        if runtime.is_local_main_process():
            self.pool.folder.mkdir(parents=True, exist_ok=True)
            for source in folder.glob("refill-*.jsonl"):
                shutil.copyfile(source, self.pool.folder / source.name)
        runtime.wait_for_everyone()

    def _require_own_collator(self, loader: Any) -> None:
        collate = loader.base_dataloader.collate_fn
        if getattr(collate, "data_collator", collate) is not self.collator:
            raise errors.InvalidState(
                f"The Trainer was given another collator ({type(collate).__name__}) than this "
                "callback. Pass both: Trainer(..., **mixup.trainer_kwargs(tokenizer)); a collator "
                "of your own goes into trainer_kwargs(tokenizer, my_collator)."
            )

    def _install_collate(self, loader: Any) -> None:
        assert self.pool is not None
        self._loader = loader
        self._plain_collate = loader.base_dataloader.collate_fn
        mixing: Any = MixingCollator(self.collator, self.pool)
        if hasattr(self._plain_collate, "data_collator"):  # RemoveColumnsCollator around ours
            wrapper = copy.copy(self._plain_collate)
            wrapper.data_collator = mixing
            mixing = wrapper
        _set_collate(loader, mixing)


def _ahead(producer: Supplies) -> Ahead:
    if not isinstance(producer, Producer):
        raise errors.bad("background", "be false where rows are not made, but at hand", True)
    return Ahead(producer)


def _log_report(rows: Sequence[MixedExample]) -> None:
    report = intrusion_report(rows)
    if report.overall.count == 0:
        return
    events = ", ".join(
        f"{name} {rate.count}" for name, rate in report.by_event.items() if rate.count
    )
    done = ", ".join(f"{name} {count}" for name, count in sorted(report.mitigations.items()))
    runtime.log(
        f"{report.overall.count} of {len(rows)} mixed sentences were doubtful at first "
        f"({events}); what became of all: {done}"
    )


def _set_collate(loader: Any, collate: Any) -> None:
    loader.base_dataloader.collate_fn = collate


def _checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / _FOLDER


def _refuse_unwatchable(args: TrainingArguments, label_format: str) -> None:
    if str(getattr(args.eval_strategy, "value", args.eval_strategy)) == "no":
        raise errors.InvalidInput(
            "`auto_off` watches the development set, but `eval_strategy` is 'no'. Give the Trainer "
            "an eval_dataset and TrainingArguments(eval_strategy='epoch'), or leave `auto_off` out."
        )
    if label_format == "labels" or args.label_smoothing_factor > 0:
        raise errors.InvalidInput(
            "`auto_off` reads the loss of each row off the model, which the Trainer gives no "
            "labels with `explicit_loss` or `label_smoothing_factor`. Leave one of them out."
        )


def _refuse_unsupported(
    args: TrainingArguments, loader: Any, model: Any, problem_type: str
) -> None:
    if args.n_gpu > 1:
        raise errors.InvalidInput(
            f"One process with {args.n_gpu} GPUs trains through DataParallel, whose replicas "
            "cannot share the loss. Start one process per GPU: `accelerate launch script.py`."
        )
    if runtime.is_dispatched(loader):
        raise errors.InvalidInput(
            "The batches of this data set are made on one process and cut apart for the others "
            "(dispatch_batches), which would tear mixed rows from their labels. Set "
            "TrainingArguments(accelerator_config={'dispatch_batches': False})."
        )
    if not hasattr(loader, "base_dataloader"):
        raise errors.InvalidInput(
            f"`train_dataloader` must be one that accelerate prepared, but got "
            f"{type(loader).__name__}. Do not override Trainer.get_train_dataloader."
        )
    if "TokenClassification" in type(model).__name__:
        raise errors.InvalidInput(
            f"{type(model).__name__} labels single tokens, and a mixed sentence has none of its "
            "parents' tokens to label. Mixing is for labels of whole texts."
        )
    problem = getattr(getattr(model, "config", None), "problem_type", None)
    if problem not in (None, problem_type):
        raise errors.InvalidInput(
            f"`problem_type` must be {problem_type!r}, as the labels given to InversedMixup are, "
            f"but the model has {problem!r}. Lists are several labels a row, floats are regression."
        )
    if problem_type != SINGLE_LABEL and args.label_smoothing_factor > 0:
        raise errors.InvalidInput(
            f"`label_smoothing_factor` must be 0 for {problem_type!r}: the Trainer would smooth "
            "the labels as if they were classes."
        )
