"""Checks at the start of training: its rows, its classes and its loss are those that are mixed.

A script that gives the plugin one training set and the Trainer another, or the same classes in
another order, would train without an error and on wrong labels. So a sample of the Trainer's rows
is compared with the plugin's, tokens and labels, and the class names with `model.config.id2label`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import Trainer

from mixup_hf import errors, runtime
from mixup_hf.data.targets import REGRESSION, SINGLE_LABEL
from mixup_hf.training.batch_checks import agree, targets_in
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.loss import takes_soft_labels
from mixup_hf.training.preprocess import TokenizerPreprocess
from mixup_hf.training.rehearsal import own_random_state
from mixup_hf.training.row_match import (
    Sample,
    common_ends,
    first_of_other_text,
    first_with_more,
    sample_rows,
    truncated_at,
)
from mixup_hf.training.trainer_rows import names_of

_WAY_OUT = (
    "InversedMixup.from_pretrained(...).attach(trainer) reads the rows from trainer.train_dataset."
)
_SEARCHED_AGAIN = 20_000  # texts, all of which are tokenized where rows are in another order


@dataclass
class RowContract:
    """What the plugin was given, to be compared with what the Trainer trains on.

    Args:
        texts: The plugin's training texts (N).
        targets: Their labels (N, C).
        label_names: The classes (C), in the order of the targets' columns.
        collator: Makes the features of mixed rows, and indices from class names.
        rows: Whether rows are compared; off for a data set whose rows change at every access.
    """

    texts: Sequence[str]
    targets: Tensor
    label_names: Sequence[str]
    collator: MixupCollator
    rows: bool = True
    _warned: set[str] = field(default_factory=set, init=False)
    _in_order: bool = field(default=True, init=False)

    def check(self, model: Any, dataset: Any) -> None:
        """Raise when rows or classes differ; warn when generated rows are formatted differently.

        Args:
            model: The model being trained.
            dataset: The train loader's data set.

        Raises:
            InvalidInput: Another class order, other rows or labels, or only a part of the rows.
        """
        if self.collator.problem_type != REGRESSION:
            check_class_order(self.label_names, getattr(model, "config", None))
        self._check_rows(dataset)

    def check_again(self, dataset: Any) -> None:
        """Compare rows once more, as an epoch begins: they may have changed.

        Not where every text would have to be tokenized to find many rows in another order.
        """
        if self._in_order or len(self.texts) <= _SEARCHED_AGAIN:
            self._check_rows(dataset)

    def _check_rows(self, dataset: Any) -> None:
        if not self.rows:
            return
        if not hasattr(dataset, "__len__"):
            self._warn_once(
                "The training set is a stream, so its rows cannot be compared with those that are "
                "mixed. Make sure that they are the same."
            )
            return
        if len(dataset) < len(self.texts):
            raise errors.InvalidInput(
                f"The Trainer trains on {len(dataset)} rows, but {len(self.texts)} rows are mixed: "
                "generated rows would have parents outside the training set, a validation split "
                f"for example. Give InversedMixup exactly the rows of train_dataset. {_WAY_OUT}"
            )
        with own_random_state(torch.device("cpu"), 0):  # rows may be drawn as they are read
            sample = sample_rows(dataset, self.texts, self.collator, self._agrees)
        if sample is None:
            return
        self._check_texts(sample)
        for position, row, at in zip(sample.positions, sample.rows, sample.matches, strict=True):
            self._check_label(position, row, at, sample.shown(row))
        found = zip(sample.positions, sample.matches, strict=True)
        self._in_order = all(at in texts for at, texts in found)
        if self._in_order and len(dataset) == len(self.texts):
            self._check_all_labels(dataset)
        self._check_format(sample)

    def _check_texts(self, sample: Sample) -> None:
        for position, row, at in zip(sample.positions, sample.rows, sample.matches, strict=True):
            if not at:
                raise errors.InvalidInput(
                    f"The Trainer trains on other rows than those that are mixed: row {position} "
                    f"of train_dataset, {sample.shown(row)!r}, is not among the "
                    f"{len(self.texts)} texts given to InversedMixup. Is it another split? If "
                    "training rows have a prefix or a template, pass the function that adds it as "
                    f"`preprocess`. {_WAY_OUT}"
                )
        other = first_of_other_text(sample)
        if other is not None:
            text = sample.shown(sample.rows[other])
            tokens = self.collator.tokenizer.decode(sample.tokens[other], skip_special_tokens=True)
            raise errors.InvalidInput(
                f"The column {self.collator.text_column!r} is not the text that the model reads: "
                f"row {sample.positions[other]} of train_dataset has {text!r} there, but its "
                f"tokens are {tokens!r}. Name the column that was tokenized, `text_column`; or "
                "pass the texts, attach(trainer, texts=[...]), or the function that formats them, "
                "`preprocess`."
            )

    def _check_label(
        self, position: int, row: Mapping[str, Any], at: Sequence[int], shown: str
    ) -> None:
        """Raise unless a row has the label that one of its texts, `at`, has for the plugin."""
        found = targets_in(row, self.collator)
        for key, label in found.items():
            if any(agree(label, self.targets[text]) for text in at):
                continue
            several = f" in the column {key!r} (of {sorted(found)})" if len(found) > 1 else ""
            raise errors.InvalidInput(
                f"Row {position} of train_dataset, {shown!r}, has the label "
                f"{self._named(label)}{several}, but in the labels given to InversedMixup it has "
                f"{self._named(self.targets[at[0]])}. Labels must be the same, with the classes in "
                "the model's order: give `label_names` in the order of model.config.id2label, or "
                f"the class indices of train_dataset. {_WAY_OUT}"
            )

    def _check_all_labels(self, dataset: Any) -> None:
        """Compare every label of rows in the plugin's order, where labels are cheap to read."""
        if not isinstance(dataset, Dataset) or dataset.format["type"] == "custom":
            return  # what a transform makes of a row is seen by looking at it only
        if self.collator.problem_type != SINGLE_LABEL:
            return
        stored, known = dataset.with_format(None), self.collator.label2id
        keys = [key for key in self.collator.label_keys if key in dataset.column_names]
        columns = {key: stored[key][:] for key in keys}
        for labels in columns.values():
            read = [known.get(each, -1) if isinstance(each, str) else each for each in labels]
            pairs = enumerate(zip(read, self.targets.argmax(1).tolist(), strict=True))
            for position in [at for at, (label, wanted) in pairs if label != wanted]:
                row = {key: column[position] for key, column in columns.items()}
                self._check_label(position, row, [position], self.texts[position])

    def _agrees(self, row: Mapping[str, Any], text: int) -> bool:
        """Whether a training row has the label of one of the plugin's texts."""
        found = targets_in(row, self.collator).values()
        return all(agree(label, self.targets[text]) for label in found)

    def _named(self, target: Tensor) -> str:
        if self.collator.problem_type != SINGLE_LABEL:
            return str([round(value, 6) for value in target.tolist()])
        index = int(target.argmax())
        if float(target.sum()) == 0:
            return "of no class"
        return f"{index} ({self.label_names[index]!r})"

    def _check_format(self, sample: Sample) -> None:
        """Let generated rows be truncated as training rows are, and hold all that these hold."""
        hook = self.collator.preprocess
        if not sample.encoded:
            return
        length = truncated_at(sample)
        if length is not None and isinstance(hook, TokenizerPreprocess) and hook.max_length is None:
            hook.max_length = length
            runtime.log(
                f"generated rows are truncated at {length} tokens, as the training rows are"
            )
        decode = self.collator.tokenizer.decode
        row = first_with_more(sample)
        if row is not None:
            raise errors.InvalidInput(
                "The training rows hold more than the text that is mixed: row "
                f"{sample.positions[row]} of train_dataset is {decode(sample.tokens[row])!r}, the "
                f"text alone {decode(sample.encoded[row])!r}. Generated rows would lack the rest. "
                "For pairs of texts, name the other column (`text_pair_column`); for a text made "
                "of several columns, save it in one of its own, or pass the function that formats "
                "rows as `preprocess`; or set check_rows=False."
            )
        for where, real, generated in common_ends(sample):
            self._warn_once(
                f"All training rows {where} with {decode(real)!r}, generated rows with "
                f"{decode(generated)!r}: the model could tell them apart by it. Pass the function "
                "that formats the training rows: `preprocess(texts, text_pairs=None) -> features`, "
                "in attach() or trainer_kwargs()."
            )

    def _warn_once(self, message: str) -> None:
        """Rows are checked by `attach`, and again when training begins."""
        if message not in self._warned:
            self._warned.add(message)
            runtime.warn(message)


def check_class_order(names: Sequence[str], config: Any) -> None:
    """Compare the plugin's classes with the model's.

    Default names on either side (`LABEL_0`, or indices) are compatible by index.

    Raises:
        InvalidInput: The same names in another order.
    """
    theirs = names_of(config)
    if _are_default(names) or _are_default(theirs) or len(theirs) != len(names):
        return
    ours, other = _plain(names), _plain(theirs)
    if ours == other:
        return
    if sorted(ours) == sorted(other):
        raise errors.InvalidInput(
            f"The classes are in the order {list(names)} for InversedMixup, but in "
            f"`model.config.id2label` in the order {theirs}: generated rows would get the labels "
            "of other classes. Give the model's order: label_names=[model.config.id2label[i] for i "
            f"in range({len(theirs)})]. {_WAY_OUT}"
        )
    runtime.warn(
        f"The classes are named {list(names)} for InversedMixup and {theirs} in "
        "`model.config.id2label`; they are matched by index."
    )


def check_loss(trainer: Trainer, explicit_loss: bool) -> None:
    """Refuse a loss function that is not known to take soft labels.

    An overridden `compute_loss` may well train on the model's loss; whether it does is checked
    before the first optimizer step, by `SoftLabelHooks.require_gradient`.

    Raises:
        InvalidInput: The Trainer has a `compute_loss_func` of the user's.
    """
    loss = trainer.compute_loss_func
    if loss is None or explicit_loss or takes_soft_labels(loss):
        return
    raise errors.InvalidInput(
        f"The Trainer has its own loss (`compute_loss_func`: {getattr(loss, '__name__', loss)!r}), "
        "which would be given class indices and so ignore the soft labels of mixed rows. For class "
        "weights, leave it out and set `class_weights`: InversedMixup.from_pretrained(..., "
        "class_weights='balanced') or one number per class. If it accepts soft labels (R, C), as "
        "torch.nn.functional.cross_entropy does, set explicit_loss=True in attach()."
    )


def check_smoothing(factor: float, *, attached: bool, label_format: str) -> None:
    """Refuse label smoothing where the Trainer's own would discard the soft labels.

    Raises:
        InvalidInput: The plugin came in by `trainer_kwargs`, without an explicit loss.
    """
    if factor > 0 and not attached and label_format != "labels":
        raise errors.InvalidInput(
            f"`label_smoothing_factor` = {factor}: the Trainer would compute that loss from hard "
            "labels, and a callback cannot change it. Use mixup.attach(trainer), or "
            "trainer_kwargs(tokenizer, explicit_loss=True): both smooth the soft labels."
        )


def _are_default(names: Iterable[str]) -> bool:
    """Whether nobody has named these classes."""
    return all(re.fullmatch(r"(LABEL_)?\d+", name) for name in names)


def _plain(names: Iterable[str]) -> list[str]:
    return [name.strip().casefold() for name in names]
