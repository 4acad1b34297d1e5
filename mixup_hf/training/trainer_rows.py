"""Reads texts, labels and class names off a Trainer, so that nobody types them twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, Trainer

from mixup_hf import errors, runtime
from mixup_hf.data.text_pairs import join_sides, split_sides
from mixup_hf.training.collator import LABEL_KEYS


@dataclass(frozen=True)
class Columns:
    """Where texts and labels are in a data set; what is None is looked for.

    Attributes:
        text: The text column.
        text_pair: The column of the second text, for pairs of texts.
        label: The label column.
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None

    def text_in(self, dataset: Any, texts: Sequence[str]) -> str:
        """The column of the texts: named, or the one of strings; `text` where none can be told.

        Args:
            dataset: The training set.
            texts: The texts, pairs joined: a column of other strings is not theirs.
        """
        readable = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        if self.text is not None or not readable or not len(dataset):
            return self.text or "text"
        try:
            found = _text_column(dataset, self, "train_dataset")
        except errors.InvalidInput:  # there are several
            return "text"
        first = None if found is None else _raw(dataset)[0][found]
        known = any(first in split_sides(text) for text in texts)
        return found if found is not None and known else "text"


@dataclass(frozen=True)
class TrainerRows:
    """What a Trainer trains and evaluates on.

    Attributes:
        texts: Training texts (N); pairs joined as by `join_sides`.
        labels: Their labels (N), as they are in the data set.
        label_names: The classes in the model's order (C); None if nobody named them.
        num_labels: C as the model has it; None if it does not say.
        eval_texts: Texts of all evaluation sets.
    """

    texts: list[str]
    labels: list[Any]
    label_names: list[str] | None
    num_labels: int | None
    eval_texts: list[str]


def read_trainer_rows(
    trainer: Trainer,
    columns: Columns,
    texts: Sequence[Any] | None,
    labels: Sequence[Any] | None,
) -> TrainerRows:
    """Read the rows of a Trainer.

    Args:
        trainer: With its model, data sets and, to decode token ids, its `processing_class`.
        columns: The columns the user named.
        texts: The training texts, if they are not to be read from the data set.
        labels: Their labels, likewise.

    Raises:
        InvalidInput: No training set; a stream; no text or label column, or several to choose from.
    """
    dataset: Any = trainer.train_dataset
    if texts is None or labels is None:
        _require_rows(dataset)
    tokenizer = trainer.processing_class
    features = getattr(dataset, "features", None)
    label_column = None
    if labels is None:
        label_column = columns.label or _label_column(dataset)
        labels = _values(dataset, label_column, "label_column")
    if texts is None:
        read = read_texts(dataset, columns, tokenizer, "train_dataset")
    else:
        read = join_sides("texts", texts if isinstance(texts, str) else list(texts))
    kind = features[label_column] if features is not None and label_column else None
    config = getattr(trainer.model, "config", None)
    return TrainerRows(
        read,
        list(labels),
        _class_names(kind) or _model_names(config),
        getattr(config, "num_labels", None),
        read_eval_texts(trainer.eval_dataset, columns, tokenizer),
    )


def read_texts(dataset: Any, columns: Columns, tokenizer: Any, name: str) -> list[str]:
    """The texts of a data set: from the text column, else decoded from its token ids.

    Raises:
        InvalidInput: Neither a text column nor token ids, or several text columns.
    """
    column = columns.text or _text_column(dataset, columns, name)
    if column is None:
        return _decoded(dataset, tokenizer, name)
    texts = _values(dataset, column, "text_column")
    if columns.text_pair is None:
        return join_sides(column, texts)
    pairs = zip(texts, _values(dataset, columns.text_pair, "text_pair_column"), strict=True)
    return join_sides(f"{column}, {columns.text_pair}", list(pairs))


def _require_rows(dataset: Any) -> None:
    if dataset is None:
        raise errors.InvalidInput(
            "The Trainer has no `train_dataset` to read rows from. Give it one, or pass the rows: "
            "attach(trainer, texts=[...], labels=[...])."
        )
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise errors.InvalidInput(
            f"`train_dataset` is a stream ({type(dataset).__name__}), and the plugin needs all "
            "training rows at once. Pass them: attach(trainer, texts=[...], labels=[...]) with "
            "TrainingArguments(accelerator_config={'dispatch_batches': False}); or load the set as "
            "a datasets.Dataset, for example Dataset.from_list(list(stream.take(n)))."
        )
    if len(dataset) == 0:
        raise errors.bad("train_dataset", "have at least one row", dataset)


def _column_names(dataset: Any) -> list[str]:
    names = getattr(dataset, "column_names", None)
    if isinstance(names, list):
        return names
    first = dataset[0]
    if not isinstance(first, Mapping):
        raise errors.InvalidInput(
            f"The rows of {type(dataset).__name__} must be dicts of features, but the first is "
            f"{type(first).__name__}. Pass the rows: attach(trainer, texts=[...], labels=[...])."
        )
    return list(first)


def _raw(dataset: Any) -> Any:
    """A data set without transforms and tensor formats: the columns as they are stored."""
    return dataset.with_format(None) if hasattr(dataset, "with_format") else dataset


def _values(dataset: Any, column: str, argument: str) -> list[Any]:
    names = _column_names(dataset)
    if column not in names:
        raise errors.bad(argument, f"be one of the columns {sorted(names)}", column)
    if isinstance(getattr(dataset, "column_names", None), list):
        return list(_raw(dataset)[column])
    return [_plain(dataset[at][column]) for at in range(len(dataset))]


def _plain(value: Any) -> Any:
    """Tensors and numpy scalars as plain numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _label_column(dataset: Any) -> str:
    names = _column_names(dataset)
    found = [name for name in LABEL_KEYS if name in names]
    if len(found) != 1:
        raise errors.InvalidInput(
            f"`train_dataset` has {'no' if not found else 'several'} label column"
            f"{'' if not found else 's ' + str(found)} among its columns {sorted(names)}. Name it "
            "with attach(trainer, label_column=...)."
        )
    return found[0]


def _text_column(dataset: Any, columns: Columns, name: str) -> str | None:
    """The one column of strings; None if there is none."""
    names = _column_names(dataset)
    left_out = {columns.text_pair, columns.label, *LABEL_KEYS}
    found = [key for key in names if key not in left_out and _holds_strings(dataset, key)]
    if len(found) > 1:
        raise errors.InvalidInput(
            f"`{name}` has several columns of strings: {found}. Name the one that the model is "
            "trained on with attach(trainer, text_column=...), and for pairs of texts the other "
            "one with text_pair_column=..."
        )
    return found[0] if found else None


def _holds_strings(dataset: Any, column: str) -> bool:
    """By its type, or by the first row where a data set has no types."""
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping) and column in features:
        return getattr(features[column], "dtype", None) in ("string", "large_string")
    return isinstance(_raw(dataset)[0].get(column), str)


def _decoded(dataset: Any, tokenizer: Any, name: str) -> list[str]:
    if "input_ids" not in _column_names(dataset):
        raise errors.InvalidInput(
            f"`{name}` has neither a column of strings nor `input_ids`, but only "
            f"{sorted(_column_names(dataset))}. Pass the texts: attach(trainer, texts=[...])."
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise errors.InvalidInput(
            f"`{name}` holds token ids, and the Trainer has no tokenizer to decode them. Set "
            "Trainer(..., processing_class=tokenizer), or pass attach(trainer, texts=[...])."
        )
    ids = [_without_padding(dataset[at], tokenizer) for at in range(len(dataset))]
    if any(_is_pair(row, tokenizer) for row in ids[:32]):
        raise errors.InvalidInput(
            f"The rows of `{name}` seem to be pairs of texts, and hold only their token ids. Keep "
            "the text columns in the data set and name them with text_column=... and "
            "text_pair_column=..., or pass texts=[(first, second), ...]."
        )
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    runtime.warn(
        f"`{name}` has no column of strings, so its texts were decoded from token ids, without "
        f"letter case or words that the tokenizer drops. The first is {texts[0]!r}. Better: keep "
        "the text column in the data set, or pass attach(trainer, texts=[...])."
    )
    return [str(text) for text in texts]


def _without_padding(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids = torch.as_tensor(row["input_ids"])
    mask = row.get("attention_mask")
    kept = ids if mask is None else ids[torch.as_tensor(mask).bool()]
    return [int(token) for token in kept]


def _is_pair(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a separator stands inside the row, and not at its end only."""
    separator = tokenizer.sep_token_id
    return separator is not None and separator in ids[1:-1]


def _class_names(feature: Any) -> list[str] | None:
    """Names of a ClassLabel, or of a list of them; None for other columns."""
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return list(names) if names else None


def _model_names(config: Any) -> list[str] | None:
    """Names in `id2label`; None for the default ones."""
    names = names_of(config)
    return None if all(name.startswith("LABEL_") for name in names) else names


def names_of(config: Any) -> list[str]:
    """The classes in a model's `id2label`, by index: keys read from JSON are strings."""
    id2label = getattr(config, "id2label", None) or {}
    numbered = all(str(index).isdecimal() for index in id2label)
    return [str(id2label[index]) for index in sorted(id2label, key=int if numbered else str)]


def read_eval_texts(dataset: Any, columns: Columns, tokenizer: Any) -> list[str]:
    """Texts of the evaluation sets, for the leak guard; a warning where they cannot be read."""
    if dataset is None:
        return []
    if isinstance(dataset, Mapping):
        return [
            text for part in dataset.values() for text in read_eval_texts(part, columns, tokenizer)
        ]
    try:
        _require_rows(dataset)
        return read_texts(dataset, columns, tokenizer, "eval_dataset")
    except errors.MixupError as error:
        runtime.warn(
            f"The evaluation texts cannot be read, so generated rows are not compared with them: "
            f"{error}"
        )
        return []
