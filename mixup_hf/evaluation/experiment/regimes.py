"""What an experiment does to the training rows before anything sees them."""

from __future__ import annotations

import numpy as np

from mixup_hf import errors
from mixup_hf.data.tables import LabelledTexts, rows_per_class
from mixup_hf.runtime import counter_rng

# What the streams of random numbers are for; part of their keys.
_FLIPPING, _SHRINKING, _UNLABELLED = 21, 22, 23


def draw_rows(
    table: LabelledTexts, shots: int, seed: int, *, imbalance: float = 1.0, unlabeled: int = 0
) -> tuple[LabelledTexts, list[str]]:
    """Draw labelled training rows, and texts without labels from the rows that are left.

    Args:
        table: All training rows.
        shots: Rows per class.
        seed: Seed of the draw.
        imbalance: Ratio of the largest to the smallest class: half of the classes, rounded down,
            keep `shots` / `imbalance` rows. Which ones is drawn.
        unlabeled: Texts without labels, at most as many as are left.

    Raises:
        InvalidInput: A class has fewer rows than `shots`.
    """
    drawn = rows_per_class("data.shots", table.labels, shots, seed)
    kept = set(drawn) if imbalance == 1 else _shrunk(table, drawn, shots, imbalance, seed)
    taken = {table.texts[row] for row in drawn}
    rest = [text for text in dict.fromkeys(table.texts) if text not in taken]
    order = counter_rng(seed, _UNLABELLED).permutation(len(rest))[:unlabeled]
    return table.take([row for row in drawn if row in kept]), [rest[at] for at in order.tolist()]


def _shrunk(
    table: LabelledTexts, drawn: list[int], shots: int, imbalance: float, seed: int
) -> set[int]:
    classes = np.array([str(table.labels[row]) for row in drawn])
    names = sorted(set(classes.tolist()))
    rng = counter_rng(seed, _SHRINKING)
    small = {names[at] for at in rng.permutation(len(names))[: len(names) // 2].tolist()}
    kept: set[int] = set()
    for name in names:
        members = np.flatnonzero(classes == name)
        count = max(1, round(shots / imbalance)) if name in small else len(members)
        kept |= {drawn[at] for at in rng.permutation(members)[:count].tolist()}
    return kept


def flip_labels(table: LabelledTexts, share: float, seed: int) -> LabelledTexts:
    """Give a share of the rows another of the classes that occur, each as likely as any other.

    Raises:
        InvalidInput: There is one class only.
    """
    count = round(share * len(table))
    if not count:
        return table
    names = sorted(set(table.labels), key=str)
    if len(names) < 2:
        raise errors.bad("label_noise", "be 0 where there is one class", share)
    rng = counter_rng(seed, _FLIPPING)
    labels = list(table.labels)
    for row in rng.choice(len(table), size=count, replace=False).tolist():
        labels[row] = rng.choice([at for at, name in enumerate(names) if name != labels[row]])
        labels[row] = names[int(labels[row])]
    return LabelledTexts(list(table.texts), labels, table.names)
