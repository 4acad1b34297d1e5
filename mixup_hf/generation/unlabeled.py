"""Unlabelled texts among generated rows: which positions of a refill hold one, and which one."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np

from mixup_hf import errors
from mixup_hf.runtime import counter_rng
from mixup_hf.types import MixedExample

# `method` of a row that is an unlabelled text.
UNLABELED = "unlabeled"
_ORDER = 13  # names the stream of random numbers; part of its key


class UnlabeledTexts:
    """Unlabelled texts that take a share of the positions of every refill, as they are.

    Every text is used once before one is used twice, in an order that depends on the seed alone.
    What a position holds is a function of (seed, epoch, position).

    Args:
        texts: The texts (M), at least one.
        share: Share of the positions they take, in [0, 1].
        seed: Seed of the run.
        rows_per_refill: Positions that a refill usually has; the next refill goes on with the
            texts that follow those of this many positions.
    """

    def __init__(
        self, texts: Sequence[str], share: float, *, seed: int, rows_per_refill: int
    ) -> None:
        errors.texts("unlabeled_texts", texts)
        errors.in_range("unlabeled_share", share, 0.0, 1.0)
        errors.at_least("rows_per_refill", rows_per_refill, 0)
        self.texts = list(texts)
        self.share = share
        self.seed = seed
        self.rows_per_refill = rows_per_refill
        self._orders: dict[int, list[int]] = {}

    def at(self, epoch: int, index: int) -> str | None:
        """The text at position `index` of an epoch; None where a mix stands."""
        place = epoch * self.rows_per_refill + index
        before = floor(place * self.share)
        if floor((place + 1) * self.share) == before:
            return None
        turn, position = divmod(before, len(self.texts))
        return self.texts[self._order(turn)[position]]

    def rows(self, epoch: int, index: np.ndarray, fingerprint: str) -> dict[int, MixedExample]:
        """Rows of unlabelled texts, without labels, by their place in `index`.

        Args:
            epoch: The refill they belong to.
            index: Positions of its plan (n,).
            fingerprint: Of the aligner; recorded in every row, as in those it decoded.
        """
        texts = {at: self.at(epoch, int(each)) for at, each in enumerate(index)}
        return {
            at: MixedExample(
                text=text,
                label=(),  # the committee's is all there is
                lam=1.0,
                parents=(),
                shares=(),
                seed=self.seed,
                epoch=epoch,
                index=int(index[at]),
                aligner_fingerprint=fingerprint,
                method=UNLABELED,
            )
            for at, text in texts.items()
            if text is not None
        }

    def first(self, count: int) -> list[str]:
        """The `count` texts that are used first, or all if there are fewer."""
        return [self.texts[at] for at in self._order(0)[:count]]

    def _order(self, turn: int) -> list[int]:
        """The order (M,) of the texts when all of them have been used `turn` times."""
        if turn not in self._orders:
            drawn = counter_rng(self.seed, _ORDER, turn).permutation(len(self.texts)).tolist()
            self._orders = {turn: drawn}
        return self._orders[turn]
