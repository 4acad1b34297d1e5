"""Fits the members of a committee on a training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from mixup_hf import errors, registry
from mixup_hf.judging.labels.committee import NUM_FOLDS, Committee
from mixup_hf.judging.labels.folds import predict_held_out
from mixup_hf.judging.labels.kept import KeepsVotes, kept_member
from mixup_hf.judging.labels.members import build_learner
from mixup_hf.judging.labels.memory import remembering
from mixup_hf.judging.labels.types import LabelInputs, Member


def fit_committee(
    inputs: LabelInputs,
    members: Sequence[str],
    *,
    extra: Mapping[str, Member] | None = None,
    calibration_texts: Sequence[str] = (),
    store: KeepsVotes | None = None,
) -> Committee:
    """Fit a committee on a training set.

    Args:
        inputs: The training set and models.
        members: Names registered under the kind `member`.
        extra: Members that have been fitted elsewhere, by name, such as the model in training.
        calibration_texts: As for `Committee.calibrate`; none leave the committee uncalibrated.
        store: Keeps what our own members say, so that a later run need not fit them. Default:
            nothing is kept.

    Raises:
        InvalidInput: A name is unknown or repeated, there is no member or fewer than two rows, or
            a member cannot work with this training set.
    """
    extra = extra or {}
    names = [*members, *extra]
    if not names or len(set(names)) < len(names):
        raise errors.bad("committee", "name at least one member, without duplicates", names)
    for name in members:
        errors.one_of("committee", name, registry.names("member"))
    errors.at_least("number of rows", len(inputs.texts), 2)
    shared = remembering(inputs)

    def fit(name: str) -> Member:
        learner = build_learner(name, shared)
        held_out = predict_held_out(learner, inputs, NUM_FOLDS)
        return Member(learner.fit(np.arange(len(inputs.texts))), held_out)

    fitted = {
        name: fit(name)
        if store is None or not _is_ours(name)
        else kept_member(name, partial(fit, name), store)
        for name in members
    }
    committee = Committee(fitted | dict(extra), inputs.texts, inputs.targets, inputs.seed)
    return committee.calibrate(calibration_texts) if calibration_texts else committee


def _is_ours(name: str) -> bool:
    """Whether a member comes with this package, whose version the store's identity holds."""
    return str(registry.get("member", name).__module__).startswith("mixup_hf.")
