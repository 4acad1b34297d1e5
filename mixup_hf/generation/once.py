"""A value that is made when it is first asked for, and can be made again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Calls `make` once, and again after `forget`.

    Args:
        make: Makes the value.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []

    def __call__(self) -> T:
        """The value."""
        if not self._made:
            # What is imported to make it, scikit-learn for one, draws from it.
            before = random.getstate()
            self._made.append(self._make())
            random.setstate(before)
        return self._made[0]

    @property
    def made(self) -> T | None:
        """The value, if it has been asked for."""
        return self._made[0] if self._made else None

    def forget(self) -> None:
        """Make another one when it is next asked for."""
        self._made.clear()
