"""Which generated rows a run has trained on, and what share of all rows they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
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
        self._losses: Tensor | None = None  # sum and count, of real and of generated rows

    def count(self, rows: Tensor) -> None:
        """Count a batch: the pool rows (R,), -1 for real ones."""
        generated = rows[rows != REAL_ROW].tolist()
        self.used.update((self.pool.refill, int(at)) for at in generated)
        self._generated += len(generated)
        self._rows += len(rows)

    def count_losses(self, losses: Tensor, rows: Tensor) -> None:
        """Count the losses (R,) of a batch, before weights; `rows` (R,) as for `count`."""
        generated = (rows != REAL_ROW).to(losses)
        real = 1 - generated
        sums = [(losses * real).sum(), real.sum(), (losses * generated).sum(), generated.sum()]
        added = torch.stack(sums)  # on its device: reading it would wait for every step
        self._losses = added if self._losses is None else self._losses + added

    def figures(self) -> dict[str, float]:
        """Of all rows since the last call, the share of generated ones and the mean losses.

        `pool_use` is the share of the refill's rows that were used at least once.
        """
        generated, rows = self._generated, self._rows
        self._generated = self._rows = 0
        if not rows:
            return {}
        found = {"mixup_hf/generated_share": generated / rows}
        if len(self.pool):
            used = sum(refill == self.pool.refill for refill, _ in self.used)
            found["mixup_hf/pool_use"] = used / len(self.pool)
        losses, self._losses = self._losses, None
        if losses is not None:
            real, real_rows, made, made_rows = losses.tolist()
            found |= {"mixup_hf/loss_real": real / real_rows} if real_rows else {}
            found |= {"mixup_hf/loss_generated": made / made_rows} if made_rows else {}
        return found

    def restore(self, used: Mapping[tuple[int, int], int]) -> None:
        """Go on from a checkpoint, which holds the sum over all processes."""
        if runtime.is_main_process():
            self.used = Counter(used)

    def rows(self) -> list[tuple[MixedExample, int]]:
        """Every generated row that was used, and how often, in the order they were made."""
        refills = {refill: self.pool.rows(refill) for refill in {each for each, _ in self.used}}
        return [(refills[refill][at], count) for (refill, at), count in sorted(self.used.items())]
