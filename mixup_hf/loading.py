"""Configs from YAML: the file gives defaults, the command line wins, an unknown key is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from mixup_hf import errors
from mixup_hf.config import build, describe

Config = TypeVar("Config")


def load_config(
    kind: type[Config], path: str | Path | None, overrides: Sequence[str] = ()
) -> Config:
    """Read a config.

    Args:
        kind: One of the dataclasses of `mixup_hf.config`.
        path: A YAML file; None starts from nothing.
        overrides: `--key.sub value` or `--key.sub=value`, as they stand on the command line. Values
            are read as YAML.

    Raises:
        ValueError: The file is no YAML mapping, a key is unknown, or a value breaks its rule. All
            faults are named at once.
        FileNotFoundError: There is no such file.
    """
    content = {} if path is None else _read(Path(path))
    for key, value in _parse_overrides(overrides):
        _set(content, key, value)
    return build_config(kind, content)


def build_config(kind: type[Config], content: Mapping[str, Any]) -> Config:
    """Check a mapping against a config class and build it."""
    return build(kind, content)


def known_keys(kind: type[Any]) -> dict[str, str]:
    """Every key of a config class, dotted, with its help."""
    return {key.name: key.help for key in describe(kind)}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise errors.MissingFile(f"There is no config file {str(path)!r}.")
    try:
        content = _parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise errors.InvalidInput(f"{path} is no YAML file: {error}") from error
    if not isinstance(content, dict):
        raise errors.InvalidInput(
            f"{path} must hold `key: value` lines, but holds {type(content).__name__}."
        )
    return content


def _as_people_write(resolvers: Mapping[str, Any]) -> dict[str, Any]:
    float_tag, bool_tag = "tag:yaml.org,2002:float", "tag:yaml.org,2002:bool"
    words = {first: [rule for rule in resolvers[first] if rule[0] != bool_tag] for first in "oO"}
    rule = (float_tag, re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"))
    numbers = {first: [rule, *resolvers.get(first, [])] for first in "-+.0123456789"}
    return dict(resolvers) | words | numbers


class _Loader(yaml.SafeLoader):
    """YAML as people write it.

    `1e-3` is a number, though YAML 1.1 wants a point and a sign; `off` is a word, as in
    `intrusion: off`, which a field that is true or false still understands.
    """

    yaml_implicit_resolvers = _as_people_write(yaml.SafeLoader.yaml_implicit_resolvers)


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # a SafeLoader: it builds plain values only


def _parse_overrides(words: Sequence[str]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise errors.InvalidInput(f"Expected `--key value`, but got {word!r}.")
        key, given, value = word[2:].partition("=")
        if not given:
            if not rest or rest[0].startswith("--"):
                raise errors.InvalidInput(f"`--{key}` needs a value: `--{key} VALUE`.")
            value = rest.pop(0)
        try:
            pairs.append((key.replace("-", "_"), _parse(value)))
        except yaml.YAMLError as error:
            raise errors.InvalidInput(
                f"`--{key}` {value!r} cannot be read as YAML: {error}"
            ) from error
    return pairs


def _set(content: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for name in parents:
        below = content.setdefault(name, {})
        if not isinstance(below, dict):
            raise errors.InvalidInput(
                f"`{dotted}` cannot be set: `{name}` is {below!r}, not a group of keys."
            )
        content = below
    content[last] = value
