"""SMOTExT, arXiv 2505.13434."""

from __future__ import annotations

from mixup_hf.mixing.methods import Method
from mixup_hf.registry import register

SMOTEXT = register("method", "smotext", help="near rows of the same class, in any ratio")(
    Method(
        paper="SMOTExT, arXiv 2505.13434; the paper's prompt asks for a paraphrase",
        weights="uniform",
        pairing="smote",
    )
)
