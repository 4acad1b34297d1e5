"""Settings as a person reads them: type, bounds, default and help of every field."""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from mixup_hf import registry

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Any: "any value",
    type(None): "null",
}


@dataclass(frozen=True)
class Key:
    """One setting.

    Attributes:
        name: Dotted, such as `mixup.mix_ratio`; `stages[].minutes` in every item of a list.
        type: As a person reads it, such as `whole number, or null`.
        bounds: Such as `at least 1` or `in [0, 1)`; empty without bounds.
        default: As YAML; None where the setting is required.
        help: One or more sentences; names that can be chosen are listed.
    """

    name: str
    type: str
    bounds: str
    default: str | None
    help: str


def describe(kind: type[Any], prefix: str = "") -> list[Key]:
    """Every setting of a settings class, groups unfolded.

    Args:
        kind: Such as `MixupConfig`.
        prefix: Put before every name.
    """
    keys: list[Key] = []
    for name, info in fields_of(kind).items():
        group, brackets = group_in(info.annotation)
        if group is None or brackets:
            keys.append(_key(prefix + name, info))
        if group is not None:
            keys += describe(group, f"{prefix}{name}{brackets}.")
    return keys


def docstring(kind: type[Any], summary: str) -> str:
    """The docstring of a settings class: its summary, and every field."""
    lines = [inspect.cleandoc(summary), "", "Attributes:"]
    for name, info in fields_of(kind).items():
        key = _key(name, info)
        rule = f"{key.type}, {key.bounds}" if key.bounds else key.type
        default = "required" if key.default is None else f"default {key.default}"
        text = f"{name}: {key.help} ({rule}; {default})"
        lines += textwrap.wrap(text, 96, initial_indent="    ", subsequent_indent="        ")
    return "\n".join(lines)


def fields_of(kind: type[Any]) -> dict[str, FieldInfo]:
    """The fields of a settings class, by name."""
    fields: dict[str, FieldInfo] = kind.__pydantic_fields__
    return fields


def group_in(hint: Any) -> tuple[type[Any] | None, str]:
    """The settings class in an annotation, with `[]` or `.NAME` where there are several of them."""
    origin = get_origin(hint)
    if origin is Annotated:
        return group_in(get_args(hint)[0])
    if isinstance(hint, type) and is_dataclass(hint):
        return hint, ""
    for part in get_args(hint):
        group, _ = group_in(part)
        if group is not None:
            return group, {tuple: "[]", dict: ".NAME"}.get(origin, "")
    return None, ""


def type_of(hint: Any, group: str = "group of settings") -> str:
    """An annotation as a person reads it."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_of(parts[0])
    if origin in (Union, types.UnionType):
        words = [type_of(part) for part in parts if part is not type(None)]
        return ", or ".join(words + ["null"] * (type(None) in parts))
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin is tuple:
        return f"list of {type_of(parts[0])}"
    if origin is dict:
        return f"{type_of(parts[1])} by name"
    if isinstance(hint, type) and is_dataclass(hint):
        return group
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def bounds_of(info: FieldInfo) -> str:
    """The bounds of a field, completing "the value must be ..."; empty without any."""
    found: dict[str, Any] = {}
    for each in info.metadata:
        found |= {
            name: getattr(each, name)
            for name in ("ge", "gt", "le", "lt")
            if getattr(each, name, None) is not None
        }
    low, high = found.get("ge", found.get("gt")), found.get("le", found.get("lt"))
    if low is not None and high is not None:
        return f"in {'[' if 'ge' in found else '('}{low}, {high}{']' if 'le' in found else ')'}"
    if low is not None:
        return f"at least {low}" if "ge" in found else f"greater than {low}"
    if high is not None:
        return f"at most {high}" if "le" in found else f"below {high}"
    return ""


def named_in(info: FieldInfo) -> Any:
    """The `Named` of a field whose values are chosen from the registry, or None."""
    marks = (*info.metadata, *_metadata(info.annotation))
    return next((mark for mark in marks if hasattr(mark, "kind") and hasattr(mark, "takes")), None)


def _metadata(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Annotated:
        yield from get_args(hint)[1:]
    for part in get_args(hint):
        yield from _metadata(part)


def _key(name: str, info: FieldInfo) -> Key:
    text = (info.description or "").strip()
    named = named_in(info)
    if named is not None:
        text = f"{text} One of: {registry.choices(named.kind)}."
    return Key(name, type_of(info.annotation), bounds_of(info), _default(info), text)


def _default(info: FieldInfo) -> str | None:
    if info.is_required():
        return None
    value = info.get_default(call_default_factory=True)
    if group_in(info.annotation)[0] is not None:
        return "null" if value is None else _names_of(value)
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("\n...\n").strip()


def _names_of(value: Any) -> str:
    """Of a list of groups, their names; of one group, that its fields have defaults."""
    if isinstance(value, tuple):
        return f"[{', '.join(each.name for each in value)}]"
    return "each setting's default"
