"""Checks of labels: what is missing is refused, what looks like a mistake is warned of."""

from __future__ import annotations

import numbers
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from mixup_hf import errors, runtime

_MANY = 10**9  # a class index beyond it is no index, and may have more digits than can be printed


def warn_conflicts(name: str, texts: Sequence[str], labels: Sequence[Any]) -> None:
    """Warn when the same text occurs with different labels.

    Args:
        name: What the user calls the rows.
        texts: The texts (N).
        labels: Their labels (N).
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for text, label in zip(texts, labels, strict=True):
        found[text].add(str(label))
    conflicts = [(text, sorted(given)) for text, given in found.items() if len(given) > 1]
    if conflicts:
        text, given = conflicts[0]
        runtime.warn(
            f"{name}: {len(conflicts)} texts occur with more than one label, the first with "
            f"{given}: {text[:80]!r}. Is that intended?"
        )


def refuse_missing(labels: Sequence[Any]) -> None:
    """Raise `InvalidInput` for labels that are None, empty strings or nan."""
    absent = [row for row, label in enumerate(labels) if is_missing(label)]
    if absent:
        raise errors.InvalidInput(
            f"`labels` are missing (None or nan) in {len(absent)} of {len(labels)} rows, the first "
            f"is row {absent[0]}. Drop those rows."
        )


def is_missing(label: Any) -> bool:
    """Whether a label is None, an empty string or nan."""
    if label is None or (isinstance(label, str) and not label):
        return True
    return isinstance(label, numbers.Real) and bool(label != label)  # only nan; ints of any size


def warn_near_duplicates(names: Iterable[str]) -> None:
    """Warn of class names that differ only in case, spaces or the code of their accents."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        composed = unicodedata.normalize("NFC", name)
        groups[" ".join(composed.casefold().split())].append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    if alike:
        shown = "; ".join(" and ".join(map(repr, group)) for group in alike)
        runtime.warn(
            "Class names that differ only in case, spaces or Unicode form are different classes: "
            f"{shown}. Is that intended?"
        )


def warn_gaps(indices: Sequence[int], names: Sequence[str]) -> None:
    """Warn of class indices without a row, where nobody said how many classes there are."""
    rows = Counter(indices)
    empty = [name for index, name in enumerate(names) if not rows[index]]
    if empty:
        shown = ", ".join(empty[:10]) + (", ..." if len(empty) > 10 else "")
        runtime.warn(
            f"The class indices run from 0 to {len(names) - 1}, so {len(names)} classes are "
            f"assumed, but no row has class {shown}. If there are only {len(rows)} classes, map "
            f"their labels to 0..{len(rows) - 1}; otherwise set `num_labels`."
        )


def require_two_classes(indices: Sequence[int], names: Sequence[str]) -> None:
    """Raise `InvalidInput` unless at least two classes occur, and there is a row for each."""
    present = sorted(set(indices))
    if len(present) < 2:
        only = names[present[0]] if present else "none"
        raise errors.InvalidInput(
            f"`labels` must hold at least two classes, but only {only!r} occurs in "
            f"{len(indices)} rows. A classifier cannot be trained on that."
        )
    require_rows(len(indices), len(names))


def require_rows(rows: int, classes: int) -> None:
    """Raise `InvalidInput` if there are more classes than rows."""
    if rows < classes:
        shown = classes if classes < _MANY else f"more than {_MANY}"
        raise errors.InvalidInput(
            f"There are fewer rows ({rows}) than classes ({shown}). Give at least one row for each "
            "class; class indices count from 0."
        )
