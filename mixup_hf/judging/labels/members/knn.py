"""A member that is a soft vote of the nearest training rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mixup_hf.registry import register

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mixup_hf.judging.labels.types import LabelInputs, Learner, Predict

_WIDTHS = (0.02, 0.05, 0.1, 0.2)  # of the kernel, in units of cosine similarity
_NEIGHBORS = 20
_QUERIES = 512  # rows whose cosines to all others exist at one time


class KnnLearner:
    """Rows vote with weight `exp(cosine / width)`; the width is chosen by leaving rows out.

    The mean label is added as a prior worth as much as a tenth of a row at the place of the
    nearest one.

    Args:
        embeddings: Embeddings of the training rows (N, D).
        values: Their labels (N, C).
        problem_type: One of `PROBLEM_TYPES`.
        read: Computes the embeddings (n, D) of any texts.
    """

    max_folds = 5

    def __init__(
        self,
        embeddings: np.ndarray,
        values: np.ndarray,
        problem_type: str,
        read: Callable[[Sequence[str]], np.ndarray],
    ) -> None:
        self.embeddings, self.values = _unit(embeddings), values
        self.problem_type, self.read = problem_type, read

    def fit(self, rows: np.ndarray) -> Predict:
        """As `Learner.fit`."""
        import torch

        from mixup_hf.judging.labels.pooling import Scale, with_floor

        embeddings, values = self.embeddings[rows], self.values[rows]
        scale = Scale(self.problem_type)
        own, near = _nearest(embeddings, embeddings, itself=True)

        def loss(width: float) -> float:
            votes = with_floor(_vote(own, near, values, width), self.problem_type)
            return scale.loss(scale.scores(votes), values)

        width = min(_WIDTHS, key=loss) if len(rows) > 1 else _WIDTHS[-1]

        def predict(texts: Sequence[str]) -> Tensor:
            cosines, rows = _nearest(_unit(self.read(texts)), embeddings)
            return torch.from_numpy(_vote(cosines, rows, values, width))

        return predict


def _nearest(
    queries: np.ndarray, embeddings: np.ndarray, itself: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines (n, k) of the most similar rows, and which they are (n, k).

    Args:
        queries: (n, D), of unit length.
        embeddings: (N, D), of unit length.
        itself: The queries are these rows, and each is left out of its own.
    """
    import numpy as np

    count = min(_NEIGHBORS, len(embeddings))
    cosines, rows = np.empty((2, len(queries), count))
    for start in range(0, len(queries), _QUERIES):
        run = slice(start, start + _QUERIES)
        found = queries[run] @ embeddings.T
        if itself:
            at = np.arange(len(found))
            found[at, at + start] = -np.inf
        best = np.argpartition(found, -count, axis=1)[:, -count:]
        rows[run], cosines[run] = best, np.take_along_axis(found, best, 1)
    return cosines, rows.astype(np.int64)


def _vote(cosines: np.ndarray, rows: np.ndarray, values: np.ndarray, width: float) -> np.ndarray:
    """Votes (n, C) of the nearest of rows with labels (N, C): their cosines and places (n, k)."""
    import numpy as np

    weights = np.exp((cosines - cosines.max(1, keepdims=True)) / width)
    votes = (weights[:, :, None] * values[rows]).sum(1) + 0.1 * values.mean(0)
    shares: np.ndarray = votes / (weights.sum(1, keepdims=True) + 0.1)
    return shares


def _unit(rows: np.ndarray) -> np.ndarray:
    import numpy as np

    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return unit


@register("member", "knn", help="a soft vote of the training rows with the nearest embeddings")
def build(inputs: LabelInputs) -> Learner:
    """A vote of neighbors among the training rows."""

    def read(texts: Sequence[str]) -> np.ndarray:
        embeddings: np.ndarray = inputs.encoder.encode(texts).double().numpy()
        return embeddings

    embeddings = inputs.embeddings.double().numpy()
    return KnnLearner(embeddings, inputs.values, inputs.targets.problem_type, read)
