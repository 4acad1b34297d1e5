"""Members of the committee that labels sentences.

Each module of this folder holds one. To add one, write a file that registers a function from
`LabelInputs` to a `Learner`, which is fitted on the real rows, once on all of them and once
without each fold:

    @register("member", "constant", help="the frequency of each class")
    def build(inputs: LabelInputs) -> Learner: ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from mixup_hf import registry

if TYPE_CHECKING:
    from mixup_hf.judging.labels.types import LabelInputs, Learner


def build_learner(name: str, inputs: LabelInputs) -> Learner:
    """Build a registered member, to be fitted.

    Args:
        name: A name registered under the kind `member`.
        inputs: The training set and models.

    Raises:
        InvalidInput: The name is unknown, or the member cannot work with this training set.
    """
    return cast("Learner", registry.get("member", name, argument="committee")(inputs))
