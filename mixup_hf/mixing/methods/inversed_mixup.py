"""inversedMixup, arXiv 2601.21543."""

from __future__ import annotations

from mixup_hf.mixing.methods import Method
from mixup_hf.registry import register

# The paper mixes the embeddings of the model in training (`source: task`), which costs far more.
INVERSED_MIXUP = register(
    "method", "inversed-mixup", help="rows of the same class, mostly close to one parent"
)(
    Method(
        paper="inversedMixup, arXiv 2601.21543; the paper uses source task",
        weights="beta:0.4",
        pairing="same_class",
    )
)
