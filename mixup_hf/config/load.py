"""Settings from a YAML file and from `--key value` words, which win over the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from mixup_hf import errors
from mixup_hf.config import build

Config = TypeVar("Config")
_NOTHING = ("null", "~")
_QUOTED = re.compile(r"""\s*("[^"]*"|'[^']*')\s*""")  # on purpose, as in YAML


def load_config(
    kind: type[Config], path: str | Path | None, overrides: Sequence[str] = ()
) -> Config:
    """Read settings.

    Args:
        kind: One of the classes of `mixup_hf.config`.
        path: A YAML file; None starts from the defaults.
        overrides: `--key.sub value` or `--key.sub=value`, as on a command line. A text is taken as
            it stands, unless all of it is in quotes; other values are read as YAML. Keys may be
            written with hyphens or with underscores.

    Raises:
        InvalidInput: The file is not a YAML mapping, a key is unknown, or values break their
            rules. All bad settings are named at once.
        MissingFile: The file does not exist.
    """
    content = {} if path is None else _read(Path(path))
    for key, word in _pairs(overrides):
        steps, hint = _steps(kind, key.split("."))
        _set(content, key, steps, _value(key, word, hint))
    return build(kind, content)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise errors.MissingFile(f"There is no config file {str(path)!r}.")
    try:
        content = _parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise errors.InvalidInput(f"{path} is not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise errors.InvalidInput(
            f"{path} must hold `key: value` lines, but holds {type(content).__name__}."
        )
    return content


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=_loader())  # a SafeLoader: it builds plain values only


@cache
def _loader() -> type[yaml.SafeLoader]:
    """YAML 1.1, but `1e-3`, without a point, is a number too."""

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise errors.InvalidInput(f"Expected `--key value`, but got {word!r}.")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise errors.InvalidInput(f"`--{key}` needs a value: `--{key} VALUE`.")
            value = rest.pop(0)
        pairs.append((key, value))
    return pairs


def _value(key: str, word: str, hint: Any) -> Any:
    """A word of the command line as a value: YAML, or the word itself where only a text fits."""
    members = set(get_args(hint)) if isinstance(hint, UnionType) else {hint}
    if members in ({str}, {str, type(None)}) and not _QUOTED.fullmatch(word):
        return None if type(None) in members and word in _NOTHING else word
    try:
        return _parse(word)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise errors.InvalidInput(f"`--{key}` {word!r} cannot be read as YAML: {error}") from error


def _steps(hint: Any, parts: Sequence[str]) -> tuple[list[str], Any]:
    """The keys on the way to a setting, and the type that it is declared with.

    Names of settings are spelled with underscores. Names of the user's choice, such as `my-set` in
    `sets.my-set.train-file`, are kept as they are.
    """
    if not parts:
        return [], hint
    first, *rest = parts
    name = first.replace("-", "_")
    for each in (hint, *get_args(hint)):  # the members of a union too
        if isinstance(each, type) and is_dataclass(each):
            steps, leaf = _steps(get_type_hints(each).get(name, Any), rest)
            return [name, *steps], leaf
        if get_origin(each) is dict:
            value = get_args(each)[1]
            steps, leaf = _steps(value, rest)
            return [name if value is Any else first, *steps], leaf
    steps, leaf = _steps(Any, rest)
    return [name, *steps], leaf


def _set(content: dict[str, Any], dotted: str, steps: Sequence[str], value: Any) -> None:
    *parents, last = steps
    for name in parents:
        below = content.setdefault(name, {})
        if not isinstance(below, dict):
            raise errors.InvalidInput(
                f"`{dotted}` cannot be set: `{name}` is {below!r}, not a group of keys."
            )
        content = below
    content[last] = value
