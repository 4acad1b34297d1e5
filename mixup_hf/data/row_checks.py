"""Generated rows from files, checked: a row that is read is one that may be trained on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite
from numbers import Integral, Real
from typing import Any

from mixup_hf import errors
from mixup_hf.data.targets import SINGLE_LABEL
from mixup_hf.types import MixedExample

_ROUNDING = 1e-3  # shares are written with six digits
_WORDS = {field.name for field in fields(MixedExample) if field.type == "str"}
_WHOLE = {field.name for field in fields(MixedExample) if field.type == "int"}


@dataclass(frozen=True)
class Rules:
    """What the labels of a file have to be.

    Attributes:
        classes: C; with one, labels are numbers to predict, else shares.
        problem_type: As transformers names it; None if it is not known.
    """

    classes: int
    problem_type: str | None = None


def check_row(row: MixedExample, rules: Rules) -> None:
    """Raise unless every value of a row is of its type and in its range.

    Raises:
        InvalidInput: Shares that are none, numbers that are not finite, a negative weight, text
            that no file can hold.
        InvalidType: A value of another type.
    """
    for name in sorted(_WORDS):
        errors.text(name, getattr(row, name))
    if not row.text.strip():
        raise errors.bad("text", "hold words", row.text)
    for event in row.events:
        errors.text("events", event)
    for name in sorted(_WHOLE):
        _require(name, getattr(row, name), Integral, "a whole number")
    for parent in row.parents:
        _require("parents", parent, Integral, "whole numbers")
    numbers = {"lam": (row.lam,), "weight": (row.weight,), "shares": row.shares, "label": row.label}
    for column in ("judges", "votes"):
        numbers |= {f"{column}[{name!r}]": given for name, given in getattr(row, column).items()}
    for name, values in numbers.items():
        for number in values:
            _require(name, number, Real, "a number")
            if not isfinite(number):
                raise errors.bad(name, "be finite", number)
    errors.at_least("weight", row.weight, 0)
    if rules.classes > 1:
        _check_shares(row.label, rules.problem_type)


def _check_shares(label: tuple[float, ...], problem_type: str | None) -> None:
    for share in label:
        errors.in_range("soft_label", share, -_ROUNDING, 1 + _ROUNDING)
    if problem_type == SINGLE_LABEL and abs(sum(label) - 1) > _ROUNDING * len(label):
        raise errors.bad("soft_label", "have shares that sum to 1", list(label))


def _require(name: str, value: Any, kind: type, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise errors.InvalidType(
            f"`{name}` must be {what}, but got {type(value).__name__}: {value!r:.200}."
        )
