"""What is trained on beside the labels, and from where. Fields of `MixupConfig`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mixup_hf.config._base import Number

ContrastiveRows = Literal["real", "all"]
ClassWeights = Literal["balanced"] | tuple[Annotated[Number, Field(gt=0)], ...]

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
WEIGHT_AVERAGE: Any = Field(
    default=None,
    ge=0,
    le=1,
    description=(
        "Share of the run's steps, the last ones, whose mean weights the run ends with; 0 keeps "
        "the last step's. By default 0.75 with a committee, unless `load_best_model_at_end` is set."
    ),
)
BALANCE: Any = Field(
    default=None,
    description=(
        "Rare classes count as much as frequent ones: in the committee, in the fitted head, and "
        "among generated rows and copies. By default where a committee labels, the largest class "
        "has at least three times the rows of the smallest, and neither `sampling_strategy` nor "
        "`class_weights` is set."
    ),
)
CLASS_WEIGHTS: Any = Field(
    default=None,
    description=(
        "Weights of the classes in the loss, in the order of the class indices; balanced "
        "weighs each class by the inverse of its frequency."
    ),
)
