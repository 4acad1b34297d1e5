"""Pydantic's findings, in the package's wording: which name, what rule, what was received."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mixup_hf import errors
from mixup_hf.config._describe import bounds_of, describe, fields_of, group_in, type_of

_OUT_OF_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def report(kind: type[Any], error: ValidationError) -> errors.InvalidInput:
    """One error for all bad values of a settings class.

    Args:
        kind: The settings class.
        error: What pydantic found.
    """
    by_place: dict[tuple[str | int, ...], list[Any]] = {}
    for fault in error.errors(include_url=False):
        if fault["type"] == "too_short" and fault["input"]:
            continue  # it was long enough before its bad items, reported beside this, were left out
        by_place.setdefault(_place(kind, fault), []).append(fault)
    faults = [_describe(kind, place, found) for place, found in by_place.items()]
    if len(faults) == 1:
        return errors.InvalidInput(faults[0])
    return errors.InvalidInput("These settings cannot be used:\n- " + "\n- ".join(faults))


def _place(kind: type[Any], fault: Any) -> tuple[str | int, ...]:
    """Where a fault lies, without the members of unions that pydantic tried there."""
    place: list[str | int] = []
    several = False
    for step in fault["loc"]:
        if several:  # an item of a list or a mapping of groups
            place.append(step)
            several = False
            continue
        fields = fields_of(kind)
        if step not in fields:
            return (*place, step) if fault["type"] == _UNKNOWN else tuple(place)
        place.append(step)
        group, brackets = group_in(fields[step].annotation)
        if group is None:
            return tuple(place)
        kind, several = group, bool(brackets)
    return tuple(place)


_UNKNOWN = "unexpected_keyword_argument"


def _describe(kind: type[Any], place: tuple[str | int, ...], faults: list[Any]) -> str:
    name = ".".join(map(str, place))
    fault = faults[0]
    holder, info = _field(kind, place)
    if fault["type"] == _UNKNOWN:
        return _unknown(name, str(place[-1]), holder)
    if fault["type"] == "missing":
        return f"`{name}` is missing. {'' if info is None else info.description or ''}".rstrip()
    if fault["type"] == "value_error":
        return _of_ours(place, str(fault["ctx"]["error"]))
    rule = _rule(info, faults)
    if "value" in fault.get("ctx", {}):
        return str(errors.bad(name, rule, fault["ctx"]["value"]))
    return str(errors.bad(name, rule, fault["input"], _suggestion(fault)))


def _rule(info: FieldInfo | None, faults: list[Any]) -> str:
    if info is None:
        return "be a group of settings"
    kinds = {fault["type"] for fault in faults}
    kind = kinds.pop() if len(kinds) == 1 else "several"  # each member of a union has its reason
    context = faults[0].get("ctx", {})
    if kind == "name":
        return f"be one of {', '.join(map(repr, context['allowed']))}"
    if kind == "literal_error":
        return f"be one of {context['expected']}"
    if kind in _OUT_OF_BOUNDS:
        bounds = bounds_of(info) or faults[0]["msg"].removeprefix("Input should be ")
        return f"lie {bounds}" if bounds.startswith("in ") else f"be {bounds}"
    if kind == "too_short":
        return "name at least one"
    words = type_of(info.annotation)
    return (
        f"be a {words}" if words.startswith(("number", "whole", "list", "group")) else f"be {words}"
    )


def _suggestion(fault: Any) -> str:
    allowed = fault.get("ctx", {}).get("allowed", ())
    return _did_you_mean(str(fault["input"]), allowed)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def _unknown(name: str, last: str, holder: type[Any]) -> str:
    prefix = name.removesuffix(last)
    known = sorted(prefix + each for each in fields_of(holder))
    meant = _did_you_mean(last, fields_of(holder)) or _elsewhere(last, holder)
    return f"`{name}` is no known key. {meant} Known here: {', '.join(known)}.".replace("  ", " ")


def _elsewhere(last: str, holder: type[Any]) -> str:
    """A group in which the key exists."""
    homes = [key.name for key in describe(holder) if key.name.endswith(f".{last}")]
    return f"Did you mean {homes[0]!r}?" if homes else ""


def _of_ours(place: tuple[str | int, ...], message: str) -> str:
    """The message of one of our rules, with the full name where it gives the last part only."""
    if not place:
        return message
    name = ".".join(map(str, place))
    for start in (f"`{place[-1]}`", f"`{place[-1]}."):
        if message.startswith(start):
            return f"`{name}{message[len(start) - 1 :]}"
    return message if message.startswith(f"`{name}") else f"in `{name}`: {message}"


def _field(kind: type[Any], place: tuple[str | int, ...]) -> tuple[type[Any], FieldInfo | None]:
    """The settings class that holds a place, and the field there, if it is one."""
    info: FieldInfo | None = None
    for step in place:
        fields = fields_of(kind)
        info = fields.get(str(step))
        group = None if info is None else group_in(info.annotation)[0]
        if group is None:
            continue
        kind = group
    return kind, info
