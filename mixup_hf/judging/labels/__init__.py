"""A committee that says which label a sentence deserves, from its text alone.

The decoded text decides the label of a generated sentence, not the ratio its parents were mixed
in. `members` are classifiers of different kinds, each fitted on the real rows and judged on rows
it has not seen; `committee` pools them; `pooling` chooses how much each counts. Names load on
first use.

Where rows have several labels, each class has a probability of its own, and its head tells it from
its absence; members that compare classes with each other (`setfit`, `label_names`) are refused. In
regression the committee predicts numbers and nothing shows how sure it is of one: it makes sense
where its R^2 on held-out rows is well above 0. For both it is used where `label_source` asks for
it: nothing has been measured that would make it the default.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixup_hf.judging.labels.committee import Committee
    from mixup_hf.judging.labels.fitting import fit_committee
    from mixup_hf.judging.labels.types import (
        LabelInputs,
        Labelled,
        Learner,
        Member,
        ReadsText,
        TunesEncoder,
    )

_HOMES = {
    "Committee": "committee",
    "LabelInputs": "types",
    "Labelled": "types",
    "Learner": "types",
    "Member": "types",
    "ReadsText": "types",
    "TunesEncoder": "types",
    "fit_committee": "fitting",
}

__all__ = [
    "Committee",
    "LabelInputs",
    "Labelled",
    "Learner",
    "Member",
    "ReadsText",
    "TunesEncoder",
    "fit_committee",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mixup_hf.judging.labels' has no attribute {name!r}")
    return getattr(import_module(f"mixup_hf.judging.labels.{_HOMES[name]}"), name)
