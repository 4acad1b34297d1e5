"""Nearest rows in embedding space, without ever holding all distances at once."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.mixing.pairings import NOBODY

__all__ = ["NOBODY", "Neighbors"]

EXACT_ROWS = 20_000
_BLOCK = 65_536  # rows whose distances to a run of queries exist at one time
_QUERIES = 512
_ROWS_PER_CELL = 250
_PROBED_CELLS = 8


class Neighbors:
    """The rows nearest to given rows, by Euclidean distance.

    Up to `exact_rows` rows every distance is computed, block by block: matrix products are so fast
    that an index gains nothing. Beyond, a faiss inverted-file index with cells of about 250 rows,
    quantized to one byte per number, probes the 8 nearest cells: memory is linear in N, and so is
    the time of N queries, apart from finding the cells. Without faiss every distance is computed.

    Args:
        embeddings: (N, D).
        exact_rows: Largest N searched exactly where faiss is installed.
    """

    def __init__(self, embeddings: Tensor, *, exact_rows: int = EXACT_ROWS) -> None:
        self.embeddings = embeddings.float()
        self._norms = self.embeddings.square().sum(-1)
        self._index = None if len(embeddings) <= exact_rows else _faiss_index(self.embeddings)

    def nearest(self, rows: np.ndarray, count: int) -> np.ndarray:
        """The `count` rows nearest to each of `rows` (n,), nearest first; never the row itself.

        Returns:
            (n, count), padded with -1 where there are fewer.
        """
        errors.at_least("count", count, 1)
        if not len(rows):
            return np.empty((0, count), np.int64)
        # One more than needed, because the row itself is among the results.
        found = self.search(self.embeddings[torch.from_numpy(rows)], count + 1)
        return _without_self(found, rows, count)

    def search(self, queries: Tensor, count: int) -> np.ndarray:
        """The `count` rows nearest to each of `queries` (n, D), nearest first.

        Returns:
            (n, count), padded with -1 where there are fewer.
        """
        if self._index is not None:
            return self._near(queries, count)
        runs = queries.split(_QUERIES)
        return np.concatenate([self._exact(run, count) for run in runs])

    def _exact(self, queries: Tensor, count: int) -> np.ndarray:
        best = torch.empty(len(queries), 0)
        at = torch.empty(len(queries), 0, dtype=torch.long)
        for start in range(0, len(self.embeddings), _BLOCK):
            block, norms = (part[start : start + _BLOCK] for part in (self.embeddings, self._norms))
            # Of |q - x|^2, what differs between rows x: the least of these is the nearest.
            score = torch.addmm(norms[None], queries, block.T, alpha=-2)
            nearest, position = score.topk(min(count, len(block)), dim=1, largest=False)
            best, at = torch.cat([best, nearest], dim=1), torch.cat([at, position + start], dim=1)
            best, kept = best.topk(min(count, best.shape[1]), dim=1, largest=False)
            at = at.gather(1, kept)
        missing = count - at.shape[1]
        padded: Tensor = torch.nn.functional.pad(at, (0, max(0, missing)), value=NOBODY)
        return padded.numpy()

    def _near(self, queries: Tensor, count: int) -> np.ndarray:
        _, at = self._index.search(queries.numpy(), count)  # type: ignore[union-attr]
        found: np.ndarray = at
        return found


def _without_self(found: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Drop each row's own index, or the last one where exact copies pushed it out."""
    own = found == rows[:, None]
    own[~own.any(axis=1), -1] = True
    kept: np.ndarray = found[~own].reshape(len(rows), count)
    return kept


def _faiss_index(embeddings: Tensor) -> Any:
    try:
        import faiss
    except ImportError:
        warnings.warn(
            f"Searching {len(embeddings)} rows is much faster with faiss: "
            "`pip install 'mixup_hf[large]'`. Without it all distances are computed.",
            stacklevel=3,
        )
        return None
    cells = -(-len(embeddings) // _ROWS_PER_CELL)
    index: Any = faiss.index_factory(embeddings.shape[1], f"IVF{cells},SQ8")
    index.cp.max_points_per_centroid, index.cp.niter = 64, 8
    index.train(embeddings.numpy())
    index.add(embeddings.numpy())
    index.nprobe = min(_PROBED_CELLS, cells)
    return index
