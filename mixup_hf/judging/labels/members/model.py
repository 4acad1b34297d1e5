"""A member that is a copy of the model being trained, trained on the real rows beforehand.

Only a Trainer has such a model, and `mixup_hf.training.rehearsal` makes the member from it; asked
for anywhere else, it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixup_hf import errors
from mixup_hf.registry import register

if TYPE_CHECKING:
    from mixup_hf.judging.labels.types import LabelInputs, Learner

NAME = "model"


def refuse_without_trainer() -> errors.InvalidInput:
    """What is wrong with the member where no Trainer has a model."""
    return errors.bad(
        "committee",
        "name other members where no Trainer has a model to copy",
        NAME,
        "Leave it out, or fine-tune with `attach` or `trainer_kwargs`.",
    )


@register("member", NAME, help="a copy of the model, trained on the real rows beforehand")
def build(inputs: LabelInputs) -> Learner:
    """Refuse: the copy joins the committee from outside."""
    raise refuse_without_trainer()
