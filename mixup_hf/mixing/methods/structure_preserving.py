"""Structure-preserving mixup, arXiv 2503.02645."""

from __future__ import annotations

from mixup_hf.mixing.methods import Method
from mixup_hf.registry import register

STRUCTURE_PRESERVING = register(
    "method", "structure-preserving", help="ratios beyond the parents, so that the variance is kept"
)(
    Method(
        paper="structure-preserving mixup, arXiv 2503.02645",
        weights="epbeta:eps=0.3",
        pairing="same_class",
    )
)
