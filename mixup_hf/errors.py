"""Errors a user can act on, and one wording for every bad argument.

Every message states which name, what rule, what was received, and the way out. Each kind is also
the built-in exception that fits, so `except ValueError` works as expected. The command line prints
a `MixupError` as one message; any other exception is a fault of the package and keeps its
traceback.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import import_module
from math import isfinite
from numbers import Real
from typing import Any


class MixupError(Exception):
    """An error whose message tells the user what to change."""


class InvalidInput(MixupError, ValueError):
    """An argument, a setting or the content of a file breaks a rule."""


class InvalidType(MixupError, TypeError):
    """An argument is of the wrong type."""


class MissingFile(MixupError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class InvalidState(MixupError, RuntimeError):
    """Something was called at the wrong time, or something it relies on has failed."""


class MissingPackage(MixupError, ImportError):
    """An optional package is not installed."""


def bad(name: str, rule: str, received: Any, way_out: str = "") -> InvalidInput:
    """Build the error for an argument that breaks a rule.

    Args:
        name: The argument as the user spells it.
        rule: What it must be, completing the sentence "`name` must ...".
        received: What it was.
        way_out: One sentence that says how to mend it.

    Returns:
        An `InvalidInput`, to be raised by the caller.
    """
    shown = repr(received)
    if len(shown) > 200:
        shown = shown[:197] + "..."
    sentence = f"`{name}` must {rule}, but got {shown}."
    return InvalidInput(f"{sentence} {way_out}".rstrip())


def one_of(name: str, value: Any, allowed: Collection[Any], way_out: str = "") -> None:
    """Raise `InvalidInput` unless `value` is one of `allowed`."""
    if value not in allowed:
        listed = ", ".join(repr(item) for item in allowed)
        raise bad(name, f"be one of {listed}", value, way_out)


def positive(name: str, value: float, way_out: str = "") -> None:
    """Raise `InvalidInput` unless `value` is a number > 0."""
    if not _is_number(value) or not value > 0:
        raise bad(name, "be greater than 0", value, way_out)


def at_least(name: str, value: float, low: float, way_out: str = "") -> None:
    """Raise `InvalidInput` unless `value` is a number >= `low`."""
    if not _is_number(value) or not value >= low:
        raise bad(name, f"be at least {low}", value, way_out)


def in_range(name: str, value: float, low: float, high: float, way_out: str = "") -> None:
    """Raise `InvalidInput` unless `value` is a number with `low` <= value <= `high`."""
    if not _is_number(value) or not low <= value <= high:
        raise bad(name, f"lie in [{low}, {high}]", value, way_out)


def text(name: str, value: Any) -> None:
    """Raise unless `value` is a string that a tokenizer or a file can take.

    Raises:
        InvalidType: It is no string.
        InvalidInput: It holds half of a surrogate pair, which no encoding has bytes for.
    """
    if not isinstance(value, str):
        raise InvalidType(
            f"`{name}` must be a string, but got {type(value).__name__}: {value!r:.200}."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"`{name}` holds {value[error.start : error.end]!r}, half of a surrogate pair, at "
            f"index {error.start}. It was cut or decoded wrongly: fix it with "
            'text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").'
        ) from error


def texts(name: str, values: Sequence[Any], *, allow_empty_list: bool = False) -> None:
    """Raise unless `values` is a sequence of strings, none of them empty or whitespace.

    Raises:
        InvalidType: A bare string was given, or an element is not a string.
        InvalidInput: The sequence, or one of its strings, is empty.
    """
    if isinstance(values, str):
        raise InvalidType(f"`{name}` must be a list of strings, but got one string: [{values!r}]?")
    if not hasattr(values, "__len__"):
        raise InvalidType(f"`{name}` must be a list of strings, but got {type(values).__name__}.")
    if len(values) == 0 and not allow_empty_list:
        raise bad(name, "hold at least one text", values)
    for row, value in enumerate(values):
        text(f"{name}[{row}]", value)
    blank = [row for row, value in enumerate(values) if not value.strip()]
    if blank:
        rows = ", ".join(map(str, blank[:5])) + (", ..." if len(blank) > 5 else "")
        raise InvalidInput(
            f"`{name}` must hold no empty or whitespace-only text, but {len(blank)} of "
            f"{len(values)} are (rows {rows}). Drop those rows first."
        )


def optional(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: Its name.
        extra: The extra of this package that installs it.
        purpose: What needs it, beginning the sentence "... needs `package`".

    Raises:
        MissingPackage: It is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingPackage(
            f"{purpose} needs {package}, which is not installed: `pip install 'mixup_hf[{extra}]'`."
        ) from error


def _is_number(value: Any) -> bool:
    """Whether `value` is a finite real number; numpy's count, booleans do not."""
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and isfinite(value)
