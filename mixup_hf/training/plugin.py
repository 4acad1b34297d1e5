"""From mixed rows of any origin to a Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Self

from transformers import PreTrainedTokenizerBase, Trainer

from mixup_hf import errors
from mixup_hf.data.targets import REGRESSION, SINGLE_LABEL
from mixup_hf.training.attaching import connect, own_loss, require_tokenizer
from mixup_hf.training.auto import describe_choice
from mixup_hf.training.callback import MixupCallback
from mixup_hf.training.checks import check_loss
from mixup_hf.training.collator import Collator, MixupCollator
from mixup_hf.training.contrastive import Contrast
from mixup_hf.training.contrastive_start import ContrastiveStart
from mixup_hf.training.curriculum import RealRows
from mixup_hf.training.head_start import HeadStart
from mixup_hf.training.loss import (
    LossFunction,
    check_counts,
    explicit_function,
    takes_soft_labels,
)
from mixup_hf.training.mixed_set import MixedTrainingSet
from mixup_hf.training.preprocess import Preprocess
from mixup_hf.training.rehearsal import Rehearsal
from mixup_hf.training.samples import SampleTables
from mixup_hf.training.trainer_rows import Columns, read_eval_texts, read_trainer_rows
from mixup_hf.training.training_rows import check_rows, rows_digest
from mixup_hf.training.weight_average import WeightAverage
from mixup_hf.types import Begins, Follows, Supplies

# Settings that say where or when sentences are made, and not which: a resumed run may change them.
_CHANGE_NO_ROW = (
    "reuse",
    "background",
    "on_failure",
    "server_timeout",
    "max_inflight",
    "server_fallback",
)


class TrainerPlugin(MixedTrainingSet):
    """Mixed rows of one training set, on their way into a Trainer.

    The training set is given at construction, or read off a Trainer by `attach`.
    """

    def attach(
        self,
        trainer: Trainer,
        text_column: str | None = None,
        text_pair_column: str | None = None,
        label_column: str | None = None,
        texts: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        preprocess: Preprocess | None = None,
        *,
        explicit_loss: bool = False,
        check_rows: bool = True,
        log_samples: int = 8,
        **collator_settings: Any,
    ) -> Self:
        """Make a Trainer mix: the one line after `Trainer(...)`.

        Training rows come from `trainer.train_dataset`, class names from the label column or
        `model.config.id2label`, evaluation texts (which are never generated) from
        `trainer.eval_dataset`, the seed from `trainer.args`, the tokenizer from
        `trainer.processing_class`. The data collator is wrapped, and a callback is added to those
        there are. Evaluation and prediction stay as they were.

        Example:
            trainer = Trainer(model, args, train_dataset=train, processing_class=tokenizer)
            InversedMixup.from_pretrained("embedded").attach(trainer, text_column="text")
            trainer.train()

        Args:
            trainer: As built, before `train()`.
            text_column: Where the training texts are. Default: the one column of strings; without
                any, texts are decoded from `input_ids`, with a warning.
            text_pair_column: Where the second texts are, for pairs of texts.
            label_column: Default: `labels`, `label` or `label_ids`.
            texts: The training texts (N), in the order of `train_dataset`, instead of reading them.
            labels: Their labels (N), instead of reading them.
            preprocess: `preprocess(texts, text_pairs=None) -> features`, for training rows that
                have a prefix, a template or a chat format: see `MixupCollator`.
            explicit_loss: The Trainer's own loss takes soft labels (R, C) as `labels`; it is told
                their elements, R * C, as `num_items_in_batch`. Without a loss of its own, it is
                given `soft_cross_entropy`.
            check_rows: Compare training rows with the plugin's, batches with the rows they are made
                from, and a model's own loss with the plain one. Turn it off where rows change at
                every access.
            log_samples: Generated rows that TensorBoard, W&B, Trackio or MLflow (those of
                `report_to`) and `log_history` show of a refill, with their parents' texts; 0
                shows none.
            **collator_settings: Further arguments of `MixupCollator`.

        Returns:
            The plugin.

        Raises:
            InvalidState: A mixup plugin is attached to this Trainer already.
            InvalidInput: Rows that cannot be read or differ from the plugin's; another order of the
                classes; a loss that ignores soft labels.
        """
        tokenizer = require_tokenizer(trainer)
        check_loss(trainer, explicit_loss)
        loss: bool | LossFunction = explicit_loss
        if explicit_loss or takes_soft_labels(trainer.compute_loss_func):
            loss = own_loss(trainer) or True
        columns = Columns(text_column, text_pair_column, label_column)
        if not self.has_rows:
            if self.config.seed is None:
                self.seed = trainer.args.seed
            self._read(trainer, columns, texts, labels)
        else:
            self._guard_also(read_eval_texts(trainer.eval_dataset, columns, tokenizer))
        kwargs = self.trainer_kwargs(
            tokenizer,
            trainer.data_collator,
            explicit_loss=loss,
            preprocess=preprocess,
            check_rows=check_rows,
            text_column=columns.text_in(trainer.train_dataset, self.texts),
            text_pair_column=text_pair_column or "text_pair",
            label_column=label_column,
            **collator_settings,
        )
        samples = SampleTables(self.texts, self.label_names, self.problem_type, log_samples)
        connect(trainer, kwargs, samples)
        return self

    def trainer_kwargs(
        self,
        tokenizer: PreTrainedTokenizerBase,
        base_collator: Collator | None = None,
        *,
        callbacks: Sequence[Any] = (),
        preprocess: Preprocess | None = None,
        explicit_loss: bool | LossFunction = False,
        max_length: int | None = None,
        check_rows: bool = True,
        **collator_settings: Any,
    ) -> dict[str, Any]:
        """Keyword arguments that make an unmodified `Trainer` mix.

        What `attach` checks is checked when training begins. Trackers (TensorBoard, wandb) do not
        get the figures of mixing this way, because a Trainer calls them before its callbacks; the
        console and the history do.

        Args:
            tokenizer: The classifier's tokenizer.
            base_collator: The collator the script used so far; it is wrapped. Default: dynamic
                padding.
            callbacks: The script's own callbacks, which come before the plugin's.
            preprocess: As for `attach`.
            explicit_loss: Also return `compute_loss_func`, `soft_cross_entropy` or the function
                given, instead of computing the loss in a hook on the model.
            max_length: Truncate mixed rows to this many tokens. Default: as the training rows are.
            check_rows: As for `attach`.
            **collator_settings: Further arguments of `MixupCollator`.

        Returns:
            `data_collator` and `callbacks`; with `explicit_loss`, `compute_loss_func`.

        Raises:
            InvalidState: The plugin has no training rows yet.
        """
        self._require_rows()
        if callable(explicit_loss):
            if self.class_weights is not None:
                raise _two_weights()
            check_counts(explicit_loss, self.num_labels)
        collator = self._collator(
            tokenizer,
            base_collator,
            preprocess=preprocess,
            max_length=max_length,
            label_format="labels" if explicit_loss else "soft_labels",
            **collator_settings,
        )
        plugin = self._callback(collator, tokenizer, check_rows)
        own = [plugin, *self._averages()]
        kwargs: dict[str, Any] = {"data_collator": collator, "callbacks": [*callbacks, *own]}
        if explicit_loss:
            kwargs["compute_loss_func"] = explicit_function(explicit_loss, self.class_weights)
        return kwargs

    def _read(
        self,
        trainer: Trainer,
        columns: Columns,
        texts: Sequence[Any] | None,
        labels: Sequence[Any] | None,
    ) -> None:
        rows = read_trainer_rows(trainer, columns, texts, labels)
        kind = REGRESSION if rows.num_labels == 1 else None  # whole floats are not classes there
        read, targets = check_rows(rows.texts, rows.labels, rows.num_labels, rows.label_names, kind)
        self._bind(read, targets, rows.eval_texts)

    def _callback(
        self, collator: MixupCollator, tokenizer: PreTrainedTokenizerBase, check_rows: bool
    ) -> MixupCallback:
        producer, follower = self._source(tokenizer)
        weight = self._contrastive_weight(collator.label_format)
        used = replace(self.chosen, contrastive_weight=weight)
        return MixupCallback(
            collator,
            producer,
            seed=self.seed,
            rows_per_refill=self.chosen.rows_per_refill,
            refill_every=self.chosen.refill_every,
            follower=follower,
            warmup_epochs=self.config.warmup_epochs if follower is not None else 0,
            background=self.config.background,
            auto_off=self.config.auto_off,
            on_failure=self.config.on_failure,
            contract=self._contract(collator, check_rows),
            class_weights=self.class_weights if self.config.enabled else None,
            curriculum=self.chosen.curriculum,
            fill=self._fill(),
            contrast=Contrast(
                weight, self.chosen.contrastive_optional, self.config.contrastive_rows
            ),
            settings=self._settings(),
            start_line=describe_choice(self.config, used, self.targets, self.problem_type),
            rehearsal=self._new_rehearsal(collator),
            starts=self._new_starts(collator),
        )

    def _new_rehearsal(self, collator: MixupCollator) -> Rehearsal | None:
        """What makes the committee's copy of the model being trained; None without one."""
        return None

    def _new_starts(self, collator: MixupCollator) -> list[Begins]:
        """What changes the model before the first step."""
        if not self.config.enabled:
            return []
        if self.problem_type != SINGLE_LABEL:
            for name in ("contrastive_start", "head_start"):
                given = getattr(self.config, name)
                if given:
                    raise errors.bad(name, "be left out unless each row has one class", given)
            return []
        if not (self.chosen.contrastive_start or self.chosen.head_start):
            return []
        balanced, starts = self.chosen.balance, list[Begins]()
        head = HeadStart(self.texts, self.targets, collator, self.seed, balanced=balanced)
        if self.chosen.contrastive_start:
            starts.append(
                ContrastiveStart(
                    self.texts,
                    self.targets,
                    collator,
                    max_steps=self.chosen.contrastive_start,
                    optional=self.config.contrastive_start is None,
                    seed=self.seed,
                    head=head,
                )
            )
        return [*starts, head] if self.chosen.head_start else starts

    def _averages(self) -> list[WeightAverage]:
        """What averages the weights of the run's last steps, if anything does."""
        share = self.chosen.weight_average if self.config.enabled else 0.0
        optional = self.config.weight_average is None
        return [WeightAverage(share, optional=optional)] if share else []

    def _contrastive_weight(self, label_format: str) -> float:
        chosen = self.chosen
        dropped = chosen.contrastive_optional and label_format == "labels"  # a loss of its own
        return chosen.contrastive_weight if self.config.enabled and not dropped else 0.0

    def _fill(self) -> RealRows | None:
        """Training rows for the places that the curriculum leaves empty."""
        if self.chosen.curriculum_fill == "none":
            return None
        return RealRows(self.texts, self.targets, self.seed, balance=self._balancing())

    def _settings(self) -> dict[str, Any]:
        """What the rows depend on; a resumed run must have the same."""
        settings = asdict(self.config) | asdict(self.chosen)
        known = {k: v for k, v in settings.items() if k not in _CHANGE_NO_ROW}
        return known | {"training_rows": rows_digest(self.texts, self.label_names, self.targets)}

    def _source(self, tokenizer: PreTrainedTokenizerBase) -> tuple[Supplies, Follows | None]:
        """What a run's rows come from, and what keeps it in step with the model, if anything."""
        return self.producer, None


def _two_weights() -> errors.InvalidInput:
    return errors.InvalidInput(
        "`class_weights` is applied in the plugin's loss, but `explicit_loss` gives another one. "
        "Leave one of them out."
    )
