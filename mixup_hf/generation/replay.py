"""Rows generated earlier, handed out again refill by refill."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mixup_hf import errors
from mixup_hf.types import MixedExample


class RecordedRows:
    """Hands out rows that were generated earlier, refill by refill.

    Each refill continues where the previous one ended and starts over at the end of the rows.

    Args:
        texts: The training texts (N), the parents of the rows.
        rows: The rows (M).

    Raises:
        InvalidInput: There are no rows.
    """

    def __init__(self, texts: Sequence[str], rows: Sequence[MixedExample]) -> None:
        if not rows:
            raise errors.bad("rows", "hold at least one generated row", rows)
        self.texts = list(texts)
        self.rows = list(rows)

    def produce(
        self,
        epoch: int,
        num_rows: int,
        on_chunk: Callable[[int], object] | None = None,
        *,
        before: int | None = None,
    ) -> list[MixedExample]:
        """The rows of a refill: `num_rows` of them, or all if there are fewer.

        Args:
            epoch: The refill.
            num_rows: How many rows it uses.
            on_chunk: Called with their number.
            before: Rows that the refills before it use; by default as many each as this one.
        """
        errors.at_least("num_rows", num_rows, 1)
        count = min(num_rows, len(self.rows))
        start = epoch * count if before is None else before
        taken = [self.rows[(start + at) % len(self.rows)] for at in range(count)]
        if on_chunk is not None:
            on_chunk(count)
        return taken

    def forget(self) -> None:
        """Do nothing: these rows do not depend on the model in training."""
