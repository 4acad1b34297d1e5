"""The help of a field, where the command line finds it."""

from __future__ import annotations


def help_(text: str) -> dict[str, str]:
    """Metadata of a field."""
    return {"help": text}
