"""A judge that looks at the nearest training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixup_hf import errors
from mixup_hf.registry import register

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mixup_hf.judging.judges import JudgeInputs


class KnnJudge:
    """The classes of the nearest training rows, weighted by distance.

    A neighbor at distance d counts `exp(-(d - d_min) / s)`, where s is the median distance of the
    neighbors. The class frequencies are added as a prior worth one row, so that no probability
    is 0.

    Args:
        embeddings: Embeddings of the training rows (N, D).
        targets: One-hot labels (N, C).
        num_neighbors: How many neighbors are used.
    """

    def __init__(self, embeddings: Tensor, targets: Tensor, num_neighbors: int = 10) -> None:
        from mixup_hf.mixing.neighbors import Neighbors

        errors.at_least("num_neighbors", num_neighbors, 1)
        self.embeddings, self.targets = embeddings, targets
        self.num_neighbors = min(num_neighbors, max(1, len(embeddings) - 2))
        self.prior = targets.mean(0)
        self._search = Neighbors(embeddings)

    def judge(self, texts: Sequence[str], embeddings: Tensor, parents: np.ndarray) -> Tensor:
        """As `Judge.judge`."""
        import numpy as np
        import torch

        from mixup_hf.mixing.neighbors import NOBODY

        near = self._search.search(embeddings, self.num_neighbors + parents.shape[1])
        is_parent = (near[:, :, None] == parents[:, None, :]).any(axis=2)
        usable = torch.from_numpy((near != NOBODY) & ~is_parent)
        # More neighbors were fetched than needed, because parents may be among them.
        usable &= usable.cumsum(1) <= self.num_neighbors
        rows = torch.from_numpy(np.maximum(near, 0))
        distance = (self.embeddings[rows] - embeddings[:, None]).norm(dim=-1)
        distance = distance.masked_fill(~usable, torch.inf)
        nearest = distance.min(1, keepdim=True).values
        scale = distance.masked_fill(~usable, torch.nan).nanmedian(1, keepdim=True).values
        weight = torch.exp((nearest - distance) / scale.clamp_min(1e-6)).nan_to_num(0.0)
        votes = (weight[..., None] * self.targets[rows]).sum(1) + self.prior
        return votes / votes.sum(1, keepdim=True)


@register("judge", "knn", help="the classes of the nearest training rows, weighted by distance")
def build(inputs: JudgeInputs) -> KnnJudge:
    """A nearest-neighbor judge over the training rows."""
    return KnnJudge(inputs.embeddings, inputs.targets)
