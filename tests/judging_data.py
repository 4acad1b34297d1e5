"""What tests of intrusion share: clusters to judge by, and a generated row."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import MixedExample
from mixup_hf.mixing.neighbors import NOBODY

CLASSES = 3
ROW = MixedExample(
    text="a new sentence",
    label=(0.5, 0.5, 0.0),
    lam=0.5,
    parents=(0, 1),
    shares=(0.5, 0.5),
    seed=0,
    epoch=0,
    index=0,
    aligner_fingerprint="f00d",
)


def blobs(count: int, spread: float = 0.3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit vectors around one centre for each class, and one-hot labels."""
    draw = torch.Generator().manual_seed(seed)
    classes = torch.arange(count) % CLASSES
    centres = torch.eye(8)[:CLASSES]
    rows = centres[classes] + spread * torch.randn(count, 8, generator=draw)
    return F.normalize(rows, dim=-1), F.one_hot(classes, CLASSES).float()


def nobody(count: int) -> np.ndarray:
    return np.full((count, 2), NOBODY)
