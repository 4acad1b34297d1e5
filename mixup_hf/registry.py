"""One registry for everything that can be chosen by name.

A pairing, a weight distribution, a judge, a method, an engine, an experiment arm or a command is
added by writing one file in the folder of its kind (see `HOMES`) and decorating what it defines:

    @register("pairing", "smote", help="one of the k nearest rows of the same class")
    class Smote: ...

Config help, `--help`, `--keys` and the README's tables are rendered from the entries. Another
package adds entries through an entry point of the group `mixup_hf.<kind>`.

An entry that takes values is written as a specification, `NAME:VALUES`, such as `beta:0.4` or
`dirichlet:1.0,m=3`; `build` reads the values from the parameters of what was registered.

Files in these folders must be cheap to import: no torch, transformers or sklearn at module level.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from mixup_hf import errors

HOMES = {
    "pairing": "mixup_hf.mixing.pairings",
    "weights": "mixup_hf.mixing.weights",
    "method": "mixup_hf.mixing.methods",
    "judge": "mixup_hf.judging.judges",
    "curriculum": "mixup_hf.training.curricula",
    "member": "mixup_hf.judging.labels.members",
    "engine": "mixup_hf.inverter.engines",
    "arm": "mixup_hf.evaluation.experiment.arms",
    "command": "mixup_hf.cli.commands",
}
T = TypeVar("T")
_ENTRIES: dict[str, dict[str, Entry]] = {kind: {} for kind in HOMES}


@dataclass(frozen=True)
class Entry:
    """Something that can be chosen by name.

    Attributes:
        kind: A key of `HOMES`.
        name: What the user writes.
        value: What was registered: a class, a function, or a value.
        help: One line, without a full stop.
        usage: How it is written where a name alone is not all, such as `beta:ALPHA`.
    """

    kind: str
    name: str
    value: Any
    help: str
    usage: str


def register(kind: str, name: str, *, help: str, usage: str = "") -> Callable[[T], T]:
    """A decorator that adds a class, a function or a value under a name.

    Args:
        kind: A key of `HOMES`.
        name: What the user writes; unique within its kind.
        help: One line for help texts and tables, without a full stop.
        usage: How it is written where a name alone is not all. Default: the name.

    Raises:
        InvalidInput: The kind is unknown, or the name is taken by something else.
    """
    errors.one_of("kind", kind, HOMES)

    def add(value: T) -> T:
        known = _ENTRIES[kind].get(name)
        if known is not None and _origin(known.value) != _origin(value):
            raise errors.bad(name, f"be registered once as {kind}", value, "Choose another name.")
        _ENTRIES[kind][name] = Entry(kind, name, value, help, usage or name)
        return value

    return add


def unregister(kind: str, name: str) -> None:
    """Remove an entry; for tests and notebooks."""
    _ENTRIES[kind].pop(name, None)


def entries(kind: str) -> list[Entry]:
    """Everything of a kind, by name."""
    errors.one_of("kind", kind, HOMES)
    _discover(kind)
    return [entry for _, entry in sorted(_ENTRIES[kind].items())]


def names(kind: str) -> tuple[str, ...]:
    """The names of a kind, sorted."""
    return tuple(entry.name for entry in entries(kind))


def get(kind: str, name: str, *, argument: str | None = None) -> Any:
    """What is registered under a name.

    Args:
        kind: A key of `HOMES`.
        name: What the user wrote.
        argument: How the user spells the setting, for the error. Default: the kind.

    Raises:
        InvalidInput: Nothing is; the message lists what there is.
    """
    errors.one_of(argument or kind, name, names(kind))
    return _ENTRIES[kind][name].value


def build(kind: str, spec: str, *, argument: str | None = None) -> Any:
    """Build what a specification such as `dirichlet:1.0,m=3` describes.

    What is registered must be callable with numbers. Values are given in the order of its
    parameters, or by name.

    Args:
        kind: A key of `HOMES`.
        spec: `NAME`, or `NAME:VALUE,NAME=VALUE`.
        argument: How the user spells the setting, for the error. Default: the kind.

    Raises:
        InvalidInput: Unknown name, or an unknown, repeated, missing or unreadable value.
    """
    argument = argument or kind
    name, _, rest = spec.partition(":")
    if name not in names(kind):
        raise errors.bad(argument, f"be one of {', '.join(map(repr, names(kind)))}", spec)
    make = _ENTRIES[kind][name].value
    parameters = inspect.signature(make, eval_str=True).parameters
    values = _read_values(argument, spec, [part for part in rest.split(",") if part], parameters)
    needed = {key for key, each in parameters.items() if each.default is each.empty}
    if needed - set(values):
        missing = ", ".join(sorted(needed - set(values)))
        raise errors.bad(argument, f"give {name!r} its {missing}", spec, _written(kind, name))
    return make(**values)


def choices(kind: str) -> str:
    """The entries of a kind as one line of help: `name` (what it does), ..."""
    return ", ".join(f"{entry.usage} ({entry.help})" for entry in entries(kind))


def table(kind: str) -> str:
    """The entries of a kind as a Markdown table."""
    lines = [f"| {kind} | what it does |", "|---|---|"]
    lines += [f"| `{entry.usage}` | {entry.help} |" for entry in entries(kind)]
    return "\n".join(lines)


def _read_values(
    argument: str, spec: str, parts: list[str], parameters: Mapping[str, inspect.Parameter]
) -> dict[str, float]:
    """The values of a specification, by the parameter that takes them."""
    names = list(parameters)
    listed = ", ".join(names) or "no values"
    if len(parts) > len(names):
        raise errors.bad(argument, f"give at most {len(names)} value(s): {listed}", spec)
    values: dict[str, float] = {}
    for position, part in enumerate(parts):
        key, equals, text = part.partition("=")
        if not equals:
            key, text = names[position], part
        if key not in names or key in values:
            raise errors.bad(argument, f"give each of {listed} at most once", spec)
        read = int if parameters[key].annotation is int else float
        try:
            values[key] = read(text)
        except ValueError:
            rule = f"give {key} as a {'whole ' if read is int else ''}number"
            raise errors.bad(argument, rule, spec) from None
    return values


def _written(kind: str, name: str) -> str:
    return f"Write {_ENTRIES[kind][name].usage!r}."


@cache
def _discover(kind: str) -> None:
    """Import every module of the kind's folder, and the plug-ins of other packages."""
    package = import_module(HOMES[kind])
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            import_module(f"{HOMES[kind]}.{module.name}")
    for plugin in entry_points(group=f"mixup_hf.{kind}"):
        plugin.load()


def _origin(value: Any) -> tuple[str, str]:
    """Where something was defined: a module that is imported twice registers the same thing."""
    home = getattr(value, "__module__", "")
    return home, getattr(value, "__qualname__", repr(value))
