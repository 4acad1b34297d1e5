"""What members of a committee have said, kept on disk beside the sentences."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixup_hf.generation.cache import SentenceStore

_DTYPES = ("float32", "float64")


class VoteStore:
    """Predictions by member and texts, as `judging.labels.kept.KeepsVotes`.

    Held in the same kind of file as sentences, one entry a call: several processes may use it at
    once, and a damaged one is set aside. It holds digests of texts, but no text.

    Args:
        folder: Where the database is.
        identity: What predictions depend on beside the texts: training set, models, versions.
        megabytes: Size limit.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any], megabytes: float) -> None:
        self._store = SentenceStore(folder, identity, megabytes, holds="labels of a committee")

    def get(self, member: str, asked: Sequence[str]) -> Tensor | None:
        """The predictions (n, C) kept for exactly these texts; None without any."""
        found = self._store.get(self._key(member, asked))
        try:
            return None if found is None else _decoded(found[0])
        except (ValueError, TypeError, IndexError):
            return None  # nothing of ours: to be computed, and replaced

    def put(self, member: str, asked: Sequence[str], votes: Tensor) -> None:
        """Keep predictions (n, C); where that is impossible, warn once and go on."""
        self._store.put(self._key(member, asked), [_encoded(votes)])

    def _key(self, member: str, asked: Sequence[str]) -> str:
        return self._store.key(member=member, asked=list(asked))


def _encoded(votes: Tensor) -> str:
    """All digits of a float tensor, as text; 16 bits as 32."""
    wide = votes if votes.dtype == torch.float64 else votes.float()
    array = wide.detach().cpu().numpy()
    content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return json.dumps([str(array.dtype), list(array.shape), content])


def _decoded(text: str) -> Tensor:
    dtype, shape, content = json.loads(text)
    if dtype not in _DTYPES:
        raise ValueError(f"predictions of the type {dtype!r}")
    array = np.frombuffer(base64.b64decode(content), dtype=dtype).reshape(shape)
    return torch.from_numpy(array.copy())
