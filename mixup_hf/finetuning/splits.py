"""The rows of a fine-tuning run: training, validation and test, with their targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mixup_hf import errors
from mixup_hf.config import DataConfig, FinetuneConfig
from mixup_hf.data.tables import (
    LabelledTexts,
    draw_shots,
    read_splits,
    read_validation,
    rows_per_class,
)
from mixup_hf.data.targets import REGRESSION, SINGLE_LABEL, Targets, like, read_targets
from mixup_hf.data.unlabeled_files import read_texts
from mixup_hf.runtime import counter_rng

_HELD_OUT = 41  # names the stream of random numbers; part of its key


@dataclass(frozen=True)
class Splits:
    """The rows of a run, all labels checked.

    Attributes:
        train: Training rows.
        validation: Rows that choose the checkpoint; None where there are none.
        test: Rows of the final test.
        targets: The training labels.
    """

    train: LabelledTexts
    validation: LabelledTexts | None
    test: LabelledTexts
    targets: Targets


def read(config: FinetuneConfig) -> Splits:
    """Read all rows of a run and check their labels, before any model is loaded.

    Validation rows that are held out of the training rows leave them first; `shots` are drawn from
    the rest.

    Raises:
        InvalidInput: A source cannot be read, or labels are missing or outside the classes.
    """
    data = config.data
    train, test = read_splits(data)
    validation = read_validation(data)
    if data.validation_share is not None or data.validation_rows_per_class is not None:
        train, validation = _held_out(config, train)
    if data.shots is not None:
        train = draw_shots(train, data.shots, config.seed)
    targets = read_targets(train.labels, None, train.names, data.problem_type)
    others = {"test": test} | ({} if validation is None else {"validation": validation})
    for name, table in others.items():
        try:
            like(targets, table.labels)
        except errors.MixupError as error:
            error.add_note(f"These are labels of the {name} rows.")
            raise
    return Splits(train, validation, test, targets)


def knowledge(data: DataConfig) -> dict[str, Any]:
    """What is known beside the labelled rows: arguments of `InversedMixup`.

    Raises:
        MissingFile: There is no file of unlabelled texts under the name given.
        InvalidInput: It cannot be read.
    """
    known: dict[str, Any] = {"label_descriptions": data.label_descriptions}
    if data.unlabeled_file is not None:
        columns = (data.text_column, data.text_pair_column)
        known["unlabeled_texts"] = read_texts(data.unlabeled_file, *columns)
    return known


def _held_out(config: FinetuneConfig, table: LabelledTexts) -> tuple[LabelledTexts, LabelledTexts]:
    """Training and validation rows, from the training rows alone."""
    data = config.data
    if data.validation_rows_per_class is not None:
        name, count = "data.validation_rows_per_class", data.validation_rows_per_class
        chosen = set(rows_per_class(name, table.labels, count, config.seed))
    else:
        assert data.validation_share is not None
        chosen = _share(table, data.validation_share, data.problem_type, config.seed)
    rest = [row for row in range(len(table)) if row not in chosen]
    if not rest or not chosen:
        raise errors.InvalidInput(
            f"The validation keys of `data` hold out {len(chosen)} of {len(table)} training rows: "
            "both sets need rows. Change the share or the rows per class."
        )
    return table.take(rest), table.take(sorted(chosen))


def _share(table: LabelledTexts, share: float, problem_type: str | None, seed: int) -> set[int]:
    """A share of the rows; of single-label rows, the same share of each class."""
    kind = problem_type or read_targets(table.labels, None, table.names).problem_type
    if kind == SINGLE_LABEL:
        groups = np.unique([str(label) for label in table.labels], return_inverse=True)[1]
    else:
        groups = np.zeros(len(table), int)
    chosen: set[int] = set()
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        count = round(share * len(members))
        drawn = counter_rng(seed, _HELD_OUT, int(group)).choice(members, count, replace=False)
        chosen |= {int(row) for row in drawn}
    return chosen


def trainer_labels(targets: Targets, table: LabelledTexts) -> list[Any]:
    """Labels of a table as the Trainer takes them: indices, multi-hot lists or numbers."""
    values = like(targets, table.labels)
    if targets.problem_type == SINGLE_LABEL:
        values = values.argmax(1)
    elif targets.problem_type == REGRESSION:
        values = values[:, 0]
    labels: list[Any] = values.tolist()
    return labels
