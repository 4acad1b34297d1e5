"""Large training sets: judges and committees are fitted on a sample of the rows.

What they cost grows like the number of rows, for every sentence (nearest rows) or at the start
(classifiers, states of an LLM), and beyond some ten thousand rows more of them change little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from mixup_hf import runtime
from mixup_hf.mixing.pairings import NOBODY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixup_hf.judging.judges import Judge

FITTED_ROWS = 20_000  # as many as are searched exactly, see `mixing.neighbors`
_FEWEST = 10  # rows of a group
_SAMPLE = 37  # names the stream of random numbers; part of its key


def sample_of(groups: np.ndarray, seed: int, what: str, most: int = FITTED_ROWS) -> np.ndarray:
    """The rows (n,), ascending, on which something is fitted: all, or a seeded sample of `most`.

    Of every group there are as many as its share, and at least ten if it has them, so a sample may
    be somewhat larger than `most`. With too many groups for that, all rows are drawn alike.

    Args:
        groups: The class of each row (N,); any numbers that tell groups apart.
        seed: Seed of the sample.
        what: What is fitted, for the log.
        most: Largest number of rows that are all taken.
    """
    count = len(groups)
    if count <= most:
        return np.arange(count)
    order = runtime.counter_rng(seed, _SAMPLE).permutation(count)
    sorted_order = order[np.argsort(groups[order], kind="stable")]
    _, starts, sizes = np.unique(groups[sorted_order], return_index=True, return_counts=True)
    taken = np.minimum(sizes, np.maximum(_FEWEST, -(-sizes * most // count)))
    parts = [sorted_order[at : at + each] for at, each in zip(starts, taken, strict=True)]
    few = len(sizes) * _FEWEST <= most
    rows: np.ndarray = np.sort(np.concatenate(parts) if few else order[:most])
    runtime.log(f"{what} on {len(rows):,} of {count:,} training rows, drawn with seed {seed}.")
    return rows


class SampledJudge:
    """A judge that was fitted on some of the training rows.

    Args:
        judge: The judge.
        rows: The rows it was fitted on (n,).
        count: Number of training rows, N.
    """

    def __init__(self, judge: Judge, rows: np.ndarray, count: int) -> None:
        self.judge_of_sample = judge
        # The place of each row in the sample; the last one is that of `NOBODY`.
        self._place = np.full(count + 1, NOBODY, np.int64)
        self._place[rows] = np.arange(len(rows))

    def judge(self, texts: Sequence[str], embeddings: Tensor, parents: np.ndarray) -> Tensor:
        """As `Judge.judge`: of the parents, those in the sample are left out."""
        return self.judge_of_sample.judge(texts, embeddings, self._place[parents])
