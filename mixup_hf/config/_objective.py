"""What is trained on beside the labels, and from where. Fields of `MixupConfig`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

ContrastiveRows = Literal["real", "all"]

CONTRASTIVE_WEIGHT: Any = Field(
    default=None,
    ge=0,
    description=(
        "Weight of a term that pulls the model's embeddings of rows with the same label together "
        "and those of other rows apart; 0 leaves the loss as it is. By default 2 with a committee, "
        "else 0."
    ),
)
CONTRASTIVE_ROWS: Any = Field(
    default="real", description="Which rows of a batch that term compares: real ones, or all."
)
CONTRASTIVE_START: Any = Field(
    default=None,
    ge=0,
    description=(
        "Optimizer steps of contrastive tuning of the model's body on the training rows, before "
        "the first step; 0 leaves it as it is. By default 40 with a committee, for encoders."
    ),
)
HEAD_START: Any = Field(
    default=None,
    description=(
        "Fit a new model's head to the training rows, as a linear probe, before the first step. "
        "By default with a committee."
    ),
)
