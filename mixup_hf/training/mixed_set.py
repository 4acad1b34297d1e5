"""Mixed rows of one training set: what was given, and batches for a loop of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors, runtime
from mixup_hf.config import MixupConfig
from mixup_hf.data.targets import Targets
from mixup_hf.data.text_pairs import join_sides
from mixup_hf.judging.labels.members.model import NAME as MEMBER
from mixup_hf.judging.labels.members.model import refuse_without_trainer
from mixup_hf.judging.leaks import LeakError, shared_texts
from mixup_hf.training.auto import Chosen, choose
from mixup_hf.training.checks import RowContract
from mixup_hf.training.collator import Collator, MixupCollator
from mixup_hf.training.curriculum import CONSTANT
from mixup_hf.training.loss import logits_of, read_class_weights
from mixup_hf.training.plain_loop import LoopRows, LoopTargets, loop_loss, mixed_batches, mixed_rows
from mixup_hf.training.preprocess import Preprocess
from mixup_hf.types import Supplies


class MixedTrainingSet:
    """Mixed rows of one training set, which is bound at construction or later.

    Args:
        config: How rows are mixed and used.

    Attributes:
        chosen: What the config leaves open, chosen for the training set.
        label_names: The classes (C), in the order of the model's outputs.
        problem_type: As in transformers' configs.
        num_labels: C.
        seed: Seed of everything drawn.
        class_weights: Weights of the classes (C,) in the loss; None if all are 1.
    """

    producer: Supplies
    label_names: list[str]
    problem_type: str
    num_labels: int
    texts: list[str]
    targets: Tensor
    eval_texts: list[str]
    class_weights: Tensor | None
    chosen: Chosen

    def __init__(self, config: MixupConfig) -> None:
        self.config = config
        self.seed = config.seed or 0
        self.has_rows = False
        self._loop_rows: LoopRows | None = None

    def batches(
        self,
        loader: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        epoch: int,
        preprocess: Preprocess | None = None,
        check_rows: bool = True,
        **collator_settings: Any,
    ) -> Iterator[tuple[dict[str, Any], LoopTargets]]:
        """Batches of an epoch with mixed rows, for a training loop without a Trainer.

        Example:
            for epoch in range(3):
                for inputs, targets in mixup.batches(loader, tokenizer, epoch=epoch):
                    loss = mixup.loss(model(**inputs), targets)
                    loss.backward()

        There is neither curriculum nor contrastive term here. A committee's labels help most in the
        first half of a run: then iterate over the plain loader in the second one.

        Rows are made as batches draw them. In several processes, each calls it: rows are decoded
        together, all before the first batch, and the processes take turns in drawing them.

        Args:
            loader: A torch `DataLoader` over the training set, prepared by accelerate or not. Its
                `collate_fn` is used for real and mixed rows together, in this process.
            tokenizer: The classifier's tokenizer.
            epoch: Other epochs get other rows, as `refill_every` says.
            preprocess: As for `attach`.
            check_rows: As for `attach`.
            **collator_settings: Further arguments of `MixupCollator`.

        Yields:
            The model's inputs, without labels, and the targets for `loss`.

        Raises:
            InvalidState: The plugin has no training rows yet.
            InvalidInput: The loader's rows are not the plugin's, or a setting needs a Trainer.
        """
        self._require_rows()
        if self._follows_model():
            raise errors.InvalidInput(
                "`source` = 'task' follows a model inside a Trainer. For a loop without one, set "
                "`source: frozen`."
            )
        _refuse_in_a_loop(self.config, self.chosen.label_source)
        inner = getattr(loader, "base_dataloader", loader)
        plain = self._collator(
            tokenizer, inner.collate_fn, preprocess=preprocess, **collator_settings
        )
        self._contract(plain, check_rows).check(None, loader.dataset)
        every = max(1, self.chosen.refill_every)
        refill = epoch // every if self.chosen.refill_every else 0
        count = self.chosen.rows_per_refill or mixed_rows(len(self.texts) * every, plain.mix_ratio)
        rows = self._rows_of(refill, max(1, count))
        start = (epoch - refill * every) * mixed_rows(len(self.texts), plain.mix_ratio)
        return mixed_batches(loader, plain, rows, start)

    def _rows_of(self, refill: int, count: int) -> LoopRows:
        """A refill's rows; those of the last one are kept for further epochs."""
        kept = self._loop_rows
        if kept is None or (kept.refill, kept.wanted) != (refill, count):
            self._loop_rows = kept = LoopRows(self.producer, refill, count)
        return kept

    def loss(
        self, outputs: Any, targets: LoopTargets, num_rows: int | Tensor | None = None
    ) -> Tensor:
        """The loss of a batch of `batches`.

        Args:
            outputs: What the model returned, see `training.loss.logits_of`.
            targets: As `batches` yields them.
            num_rows: What the sum over rows is divided by: with gradient accumulation, the rows of
                the whole optimizer step. Default: the R rows of this batch.
        """
        return loop_loss(
            logits_of(outputs), targets, self.problem_type, self.class_weights, num_rows
        )

    def _balancing(self) -> float:
        """Share of generated rows and copies in a batch, where they make up for rare classes."""
        return self.config.mix_ratio if self.chosen.balance else 0.0

    def _bind(self, texts: list[str], targets: Targets, eval_texts: Sequence[Any]) -> None:
        """Take a checked training set, and choose the settings that were left open for it."""
        self.chosen = self._choose(targets)
        self.texts, self.targets = texts, targets.values
        self.label_names = list(targets.names)
        self.num_labels = len(self.label_names)
        self.problem_type = targets.problem_type
        self.class_weights = read_class_weights(
            self.config.class_weights, self.targets, self.problem_type
        )
        self._guard(eval_texts)
        self.has_rows = True

    def _choose(self, targets: Targets) -> Chosen:
        return choose(self.config, targets)

    def _guard(self, eval_texts: Sequence[Any]) -> None:
        """Keep the evaluation texts out of training, as `leaks` says."""
        self.eval_texts = join_sides("eval_texts", list(eval_texts))
        for row, text in enumerate(self.eval_texts):
            errors.text(f"eval_texts[{row}]", text)
        self._loop_rows = None  # made without knowing these texts
        if self.config.leaks != "off":
            _check_parents(self.texts, self.eval_texts, fail=self.config.leaks == "fail")

    def _guard_also(self, eval_texts: Sequence[Any]) -> None:
        """Keep these out as well, beside those that are known."""
        known = set(self.eval_texts)
        more = [text for text in join_sides("eval_texts", list(eval_texts)) if text not in known]
        if more:
            self._guard([*self.eval_texts, *more])

    def _require_rows(self) -> None:
        if not self.has_rows:
            raise errors.InvalidState(
                "This plugin has no training rows yet. Read them off a Trainer with "
                "attach(trainer), or give them at construction: "
                f"{type(self).__name__}(..., texts, labels)."
            )

    def _collator(
        self, tokenizer: PreTrainedTokenizerBase, base: Collator | None, **settings: Any
    ) -> MixupCollator:
        return MixupCollator(
            tokenizer,
            num_labels=self.num_labels,
            problem_type=self.problem_type,
            base_collator=base,
            label2id={name: index for index, name in enumerate(self.label_names)},
            mix_ratio=self.config.mix_ratio if self.config.enabled else 0.0,
            mixed_weight=self.config.mixed_weight,
            **settings,
        )

    def _contract(self, collator: MixupCollator, check_rows: bool) -> RowContract:
        """What compares rows with the Trainer's; the collator compares batches, or does not."""
        collator.checks_batches = check_rows
        return RowContract(self.texts, self.targets, self.label_names, collator, check_rows)

    def _follows_model(self) -> bool:
        return False


def read_config(config: MixupConfig | None, settings: dict[str, Any]) -> MixupConfig:
    """The config, given whole or as single settings.

    Raises:
        InvalidInput: An unknown setting, or both are given.
    """
    if config is None:
        return MixupConfig(**settings)
    if settings:
        raise errors.InvalidInput(
            f"Give either `config` or single settings, but not both; got `config` and "
            f"{sorted(settings)}. Put the settings into MixupConfig(...)."
        )
    return config


def _refuse_in_a_loop(config: MixupConfig, label_source: str) -> None:
    """Refuse what only a Trainer's callback and hooks can do."""
    if config.curriculum not in (None, CONSTANT):
        raise errors.bad(
            "curriculum",
            f"be {CONSTANT!r} in a loop without a Trainer, whose length is not known",
            config.curriculum,
            "In such a loop, call `batches` only for the epochs that mix.",
        )
    if config.contrastive_weight:
        raise errors.bad(
            "contrastive_weight",
            "be 0 in a loop without a Trainer",
            config.contrastive_weight,
            "Add mixup_hf.training.contrastive.contrastive_loss(embeddings, targets.values) to "
            "your loss.",
        )
    if MEMBER in config.committee and label_source != "parents":
        raise refuse_without_trainer()


def _check_parents(texts: Sequence[str], eval_texts: Sequence[str], *, fail: bool) -> None:
    """Warn, or with `fail` raise, when the model would be trained on what it is evaluated on."""
    shared = shared_texts(texts, eval_texts)
    if not shared:
        return
    message = (
        f"{len(shared)} of {len(texts)} training texts are evaluation texts too, the first "
        f"{texts[shared[0]]!r}: evaluation scores on them are meaningless. Remove them from one of "
        "the sets."
    )
    if fail:
        raise LeakError(message)
    runtime.warn(message)
