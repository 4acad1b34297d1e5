"""The generated rows of a run, as its report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixup_hf.data.row_files import read_shown
from mixup_hf.data.row_formats import read_records
from mixup_hf.evaluation.report.committee import Voted
from mixup_hf.types import MixedExample

_WORTH_NAMING = 0.05  # a class's share in a label: a committee leaves every class a little


@dataclass(frozen=True)
class Made:
    """A generated row as a report shows it.

    Attributes:
        row: The row.
        parents: Its parents' texts.
        names: The classes (C).
        classes: The parents' classes; empty if the file does not have them.
    """

    row: MixedExample
    parents: list[str]
    names: list[str]
    classes: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The sentence; both sides of a pair in one line."""
        return _line(self.row.text)

    @property
    def lam(self) -> float:
        """Share of the first parent."""
        return self.row.lam

    @property
    def label(self) -> str:
        """Classes with their shares, the largest first; without those of next to nothing."""
        shares = sorted(zip(self.row.label, self.names, strict=True), reverse=True)
        shown = [each for each in shares if each[0] >= _WORTH_NAMING] or shares[:1]
        return ", ".join(f"{name} {share:.2f}" for share, name in shown)

    @property
    def events(self) -> tuple[str, ...]:
        """What judges found."""
        return self.row.events

    @property
    def voted(self) -> Voted:
        """The sentence with its label and the opinions it was made from."""
        return Voted(self.text, self.row.label, self.row.votes, self.names)

    @property
    def mitigation(self) -> str:
        """What was done about it."""
        return "" if self.row.mitigation == "none" else self.row.mitigation

    @property
    def doubts(self) -> bool:
        """Whether judges found anything, or anything was done."""
        return bool(self.events or self.mitigation)


def read_made(file: Path) -> list[Made]:
    """The rows of a run's `mixed.jsonl`; none if there is no such file.

    Raises:
        InvalidInput: A row is damaged.
    """
    if not file.is_file():
        return []
    classes = [_written_classes(content) for _, content in read_records(file)]
    return [Made(*shown, held) for shown, held in zip(read_shown(file), classes, strict=True)]


def _written_classes(content: Mapping[str, Any]) -> Sequence[str]:
    """`parent_labels` of a row, if they are one for each parent."""
    found = content.get("parent_labels")
    if not isinstance(found, list) or len(found) != len(content.get("parent_texts", ())):
        return ()
    return [str(each) for each in found]


def _line(text: str) -> str:
    return " / ".join(text.split("\x1e"))
