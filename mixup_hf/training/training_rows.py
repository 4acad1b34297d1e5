"""A training set as users give it, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from torch import Tensor

from mixup_hf import errors
from mixup_hf.config import LabelSource
from mixup_hf.data.row_files import digest
from mixup_hf.data.targets import Targets, read_targets
from mixup_hf.data.text_pairs import join_sides

_SOURCES: tuple[str, ...] = get_args(LabelSource)


def check_rows(
    texts: Sequence[Any] | None,
    labels: Sequence[Any] | None,
    num_labels: int | None,
    label_names: Sequence[str] | None,
    problem_type: str | None = None,
) -> tuple[list[str], Targets]:
    """Read texts and labels as the plugins hold them.

    Args:
        texts: N texts, or pairs of texts.
        labels: N labels.
        num_labels: C. Default: as many as occur.
        label_names: The classes in the model's order.
        problem_type: As `read_targets` takes it. Default: inferred from the labels.

    Returns:
        Texts, pairs joined, and targets.

    Raises:
        InvalidType: A data set, a bare string, or values that are no texts or labels.
        InvalidInput: Empty texts, unequal numbers of texts and labels, fewer than two classes.
    """
    texts = () if texts is None else texts
    if hasattr(texts, "column_names") or labels is None:
        kind = type(texts).__name__
        raise errors.InvalidType(
            f"`texts` must be a list of texts and `labels` a list of labels, but got {kind} and "
            f"{type(labels).__name__}. For a data set, give its columns: texts=dataset['text'], "
            "labels=dataset['label']; or let attach(trainer) read them."
        )
    for name, given in (("texts", texts), ("labels", labels)):
        if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
            source = isinstance(given, str) and given in _SOURCES
            hint = f" Who labels generated rows is set by `label_source`: {', '.join(_SOURCES)}."
            raise errors.InvalidType(
                f"`{name}` must be a list of {name}, but got {type(given).__name__}: "
                f"{given!r:.200}.{hint if source else ''}"
            )
    texts = join_sides("texts", list(texts))
    errors.texts("texts", texts)
    labels = list(labels)
    if len(texts) != len(labels):
        raise errors.InvalidInput(
            f"`texts` and `labels` must have the same length, but got {len(texts)} and "
            f"{len(labels)}."
        )
    return texts, read_targets(labels, num_labels, label_names, problem_type)


def rows_digest(texts: Sequence[str], names: Sequence[str], targets: Tensor) -> str:
    """SHA-256 of a training set: texts (N), names of the classes (C), targets (N, C)."""
    return digest([*texts, *names, hashlib.sha256(targets.numpy().tobytes()).hexdigest()])
