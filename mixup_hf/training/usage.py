"""Which generated rows a run has trained on, and what share of all rows they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from mixup_hf import runtime
from mixup_hf.training.mixing_collator import REAL_ROW
from mixup_hf.training.pool import MixupPool
from mixup_hf.types import MixedExample


class RowUsage:
    """Counts of the rows that this process has trained on.

    Args:
        pool: Where generated rows come from.

    Attributes:
        used: How often each generated row was used, by refill and index.
    """

    def __init__(self, pool: MixupPool) -> None:
        self.pool = pool
        self.used: Counter[tuple[int, int]] = Counter()
        self._generated = self._rows = 0  # since the last log line

    def count(self, rows: Tensor) -> None:
        """Count a batch: the pool rows (R,), -1 for real ones."""
        generated = rows[rows != REAL_ROW].tolist()
        self.used.update((self.pool.refill, int(at)) for at in generated)
        self._generated += len(generated)
        self._rows += len(rows)

    def figures(self) -> dict[str, float]:
        """The share of generated rows among all since the last call."""
        generated, rows = self._generated, self._rows
        self._generated = self._rows = 0
        return {"mixup_hf/generated_share": generated / rows} if rows else {}

    def restore(self, used: Mapping[tuple[int, int], int]) -> None:
        """Go on from a checkpoint, which holds the sum over all processes."""
        if runtime.is_main_process():
            self.used = Counter(used)

    def rows(self) -> list[tuple[MixedExample, int]]:
        """Every generated row that was used, and how often, in the order they were made."""
        refills = {refill: self.pool.rows(refill) for refill in {each for each, _ in self.used}}
        return [(refills[refill][at], count) for (refill, at), count in sorted(self.used.items())]
