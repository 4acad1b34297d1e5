"""Class names as people would say them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mixup_hf import errors

_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_\-./\s]+")


def readable(name: str) -> str:
    """A class name in words: `BookFlight` and `book_flight` are "book flight".

    Words in capitals, such as `HUM`, stay as they are; so does a name without letters or digits.
    """
    words = [word for word in _BOUNDARY.split(name) if word]
    return " ".join(word if word.isupper() else word.lower() for word in words) or name


def describe_labels(names: Sequence[str], given: Mapping[str, str] | None = None) -> list[str]:
    """A description of every class (C): the one given, else its name made readable.

    Args:
        names: The classes (C).
        given: Descriptions by class name; need not cover all.

    Raises:
        InvalidInput: A name is no class, or a description is empty.
    """
    given = given or {}
    for name, text in given.items():
        errors.one_of("label_descriptions", name, names)
        if not isinstance(text, str) or not text.strip():
            raise errors.bad(f"label_descriptions[{name!r}]", "be a text", text)
    return [given.get(name) or readable(name) for name in names]
