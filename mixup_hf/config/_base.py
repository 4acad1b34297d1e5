"""What the settings classes have in common: how they are declared, and how bad values are reported.

A settings class is a frozen pydantic dataclass whose fields carry their default, bounds and help:

    @settings
    class MixupConfig:
        "How sentences are mixed, decoded and fed to training."

        mix_ratio: Number = Field(0.5, ge=0, lt=1, description="Share of mixed rows in a batch.")

`help()` of the class, `describe` and the messages about bad values are rendered from the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import pydantic.dataclasses
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from mixup_hf import registry
from mixup_hf.config._describe import docstring
from mixup_hf.config._faults import report

Kind = TypeVar("Kind", bound=type)
Config = TypeVar("Config")


def _plain_number(value: Any) -> Any:
    """Refuse booleans, which pydantic takes for 0 and 1; accept numpy's integers."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "must be a number")
    return int(value) if isinstance(value, Integral) else value


def _off(value: Any) -> Any:
    """YAML reads a bare `off` as false; where the word `off` is meant, it is taken for the word."""
    return "off" if value is False else value


Number = Annotated[float, BeforeValidator(_plain_number)]
Whole = Annotated[int, BeforeValidator(_plain_number)]
OFF = BeforeValidator(_off)


@dataclass(frozen=True)
class Named:
    """Marks a text that must be the name of a registered entry.

    Attributes:
        kind: A kind of `mixup_hf.registry`.
        takes: What may follow the name and a colon: `nothing`; `numbers`, from which the entry is
            built, as in `beta:0.4`; or an `argument`, which the entry's `check` reads, as in
            `vllm:http://host:8000`.
    """

    kind: str
    takes: Literal["nothing", "numbers", "argument"] = "nothing"

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: str) -> str:
        name, _, argument = value.partition(":")
        if self.takes == "nothing":
            name = value
        if name not in registry.names(self.kind):
            allowed = [each.usage for each in registry.entries(self.kind)]
            raise PydanticCustomError("name", "unknown name", {"allowed": allowed})
        if self.takes == "numbers":
            registry.build(self.kind, value)
        if self.takes == "argument":
            registry.get(self.kind, name)().check(argument)
        return value


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def settings(kind: Kind) -> Kind:
    """Make a class of settings: frozen, keyword-only, checked when it is built.

    Raises:
        InvalidInput: When an instance is built from bad values; all of them are named at once.
    """
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    made: Any = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=config)(kind)
    checked: Callable[..., None] = made.__init__

    def __init__(self: Any, **values: Any) -> None:
        try:
            checked(self, **values)
        except ValidationError as error:
            raise report(type(self), error) from None

    made.__init__ = __init__
    made.__doc__ = _LazyDoc(kind.__doc__ or "")
    return made  # type: ignore[no-any-return]


def build(kind: type[Config], values: Mapping[Any, Any]) -> Config:
    """Check a mapping, as read from a file, and build the settings.

    Args:
        kind: A settings class.
        values: By name; groups of settings are mappings themselves.

    Raises:
        InvalidInput: Values are bad, missing or unknown; all of them are named at once.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise report(kind, error) from None


class _LazyDoc:
    """A docstring that lists the fields; rendered when read, because names load the registry."""

    def __init__(self, summary: str) -> None:
        self.summary = summary

    def __get__(self, instance: object, owner: type[Any]) -> str:
        return docstring(owner, self.summary)
