"""Members whose predictions are kept from run to run, so that they need not be fitted again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Protocol

from torch import Tensor

from mixup_hf import runtime
from mixup_hf.judging.labels.types import Member

_HELD_OUT = "held out"  # instead of texts


class KeepsVotes(Protocol):
    """Where predictions are kept, of members fitted on one training set."""

    def get(self, member: str, asked: Sequence[str]) -> Tensor | None:
        """The predictions (n, C) kept for exactly these n texts; None without any."""
        ...

    def put(self, member: str, asked: Sequence[str], votes: Tensor) -> None:
        """Keep predictions (n, C)."""
        ...


def is_kept(name: str, store: KeepsVotes) -> bool:
    """Whether an earlier run has fitted the member."""
    return store.get(name, [_HELD_OUT]) is not None


def kept_member(name: str, fit: Callable[[], Member], store: KeepsVotes) -> Member:
    """A member that is fitted only when it is asked for texts that no run has asked it for.

    Predictions are kept by all the texts of a call, because others in the same batch may change the
    last digits: a second run gets exactly what the first one got.

    Args:
        name: The member's, in the store.
        fit: Fits it, with held-out predictions.
        store: Knows what members fitted on the same rows, by the same models, have predicted.
    """
    held_out = store.get(name, [_HELD_OUT])
    fitted = cache(fit if held_out is None else partial(_fit_late, name, fit))
    if held_out is None:
        held_out = fitted().held_out
        assert held_out is not None
        store.put(name, [_HELD_OUT], held_out)

    def predict(texts: Sequence[str]) -> Tensor:
        asked = ["texts", *texts]
        votes = store.get(name, asked)
        if votes is None:
            votes = fitted().predict(texts)
            store.put(name, asked, votes)
        return votes

    return Member(predict, held_out)


def _fit_late(name: str, fit: Callable[[], Member]) -> Member:
    """Fit in the middle of a run, which may wait for a minute."""
    runtime.announce(
        f"mixup_hf: fitting the member {name} of the committee: no earlier run has asked it for "
        "these sentences"
    )
    return fit()
