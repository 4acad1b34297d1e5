"""Labels of generated rows by what they say, given by a committee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from mixup_hf import errors
from mixup_hf.data.text_pairs import without_blanks
from mixup_hf.generation.once import Once
from mixup_hf.types import Labels, MixedExample

_DIGITS = 4  # of the votes, as of the judges' probabilities


class Labelling:
    """Labels rows with a committee that is made when the first ones are labelled.

    A row that its parent's own text replaced keeps the parent's label, which is known; the
    committee votes on it all the same.

    Args:
        make: Makes the committee; called once, and again after `forget`.
        share: Weight of the committee's label against the one the row has, in [0, 1].
    """

    def __init__(self, make: Callable[[], Labels], share: float = 1.0) -> None:
        errors.in_range("share", share, 0.0, 1.0)
        self._committee = Once(make)
        self.share = share

    @property
    def labels(self) -> Labels:
        """The committee."""
        return self._committee()

    @property
    def fitted(self) -> Labels | None:
        """The committee, if rows have been labelled already."""
        return self._committee.made

    def fit(self) -> None:
        """Fit the committee, if it is not yet."""
        self._committee()

    def forget(self) -> None:
        """Make another committee when the next rows are labelled."""
        self._committee.forget()

    def apply(self, rows: Sequence[MixedExample]) -> list[MixedExample]:
        """The rows with their labels and the members' votes.

        Args:
            rows: The rows of one chunk, as the gate has accepted them.
        """
        if not rows:
            return []
        found = self.labels.label([without_blanks(row.text) for row in rows])
        return [
            replace(
                row,
                label=row.label if _is_known(row) else self._pooled(row, label),
                votes={name: _rounded(votes[at]) for name, votes in found.votes.items()},
            )
            for at, (row, label) in enumerate(zip(rows, found.labels, strict=True))
        ]

    def _pooled(self, row: MixedExample, label: Tensor) -> tuple[float, ...]:
        given: list[float] = label.tolist()
        if self.share == 1:
            return tuple(given)
        both = zip(row.label, given, strict=True)
        return tuple((1 - self.share) * own + self.share * each for own, each in both)


def _is_known(row: MixedExample) -> bool:
    """Whether the text is a training row's, and not an unlabelled one that replaced the row."""
    return row.is_copy and bool(row.label)


def _rounded(probabilities: Tensor) -> tuple[float, ...]:
    return tuple(round(value, _DIGITS) for value in probabilities.tolist())
