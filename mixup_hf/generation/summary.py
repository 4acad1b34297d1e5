"""What came out of a run that generated rows: per class, redrawn, copied, how varied, how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mixup_hf.data.text_pairs import MARK
from mixup_hf.judging.events import EVENTS
from mixup_hf.judging.form import novel_names
from mixup_hf.judging.policies import CUT
from mixup_hf.types import MixedExample


@dataclass
class RowSummary:
    """Counts of generated rows, which grow as rows are added.

    Attributes:
        rows: All rows.
        doubtful: Rows whose first sentence had an event (see `judging.events`).
        redrawn: Rows whose sentence was generated again.
        relabelled: Rows whose label was changed towards the judges' prediction.
        downweighted: Rows with a smaller weight in the loss.
        copies: Rows that are the text and label of a training row, used where every redraw was
            doubtful.
        cut: Rows from which sentences were cut off, and nothing else was done.
        events: First sentences with each event.
        invented: Rows with names or numbers that none of their parents has.
        words: Words in all rows.
        by_class: Rows by the class with the largest share; with `multi_label`, by every class whose
            share is at least one half.
        multi_label: Rows may have several classes, or none.
        texts: The training texts (N); without them, `invented` is not counted.
    """

    rows: int = 0
    doubtful: int = 0
    redrawn: int = 0
    relabelled: int = 0
    downweighted: int = 0
    copies: int = 0
    cut: int = 0
    events: Counter[str] = field(default_factory=Counter)
    invented: int = 0
    words: int = 0
    by_class: Counter[int] = field(default_factory=Counter)
    multi_label: bool = False
    texts: Sequence[str] = field(default=(), repr=False)
    _texts: set[int] = field(default_factory=set, repr=False)

    def add(self, rows: Iterable[MixedExample]) -> None:
        """Count further rows."""
        for row in rows:
            self.rows += 1
            self.doubtful += bool(row.events)
            self.redrawn += row.attempts > 1
            self.relabelled += row.mitigation in ("relabelled", "blended")
            self.downweighted += row.mitigation == "weighted"
            self.copies += row.is_copy
            self.cut += row.mitigation == CUT
            self.events.update(row.events)
            self.invented += bool(self.texts and novel_names(row, self.texts))
            self.words += count_words(row.text)
            self.by_class.update(self._classes(row))
            self._texts.add(hash(row.text))

    def _classes(self, row: MixedExample) -> list[int]:
        if not self.multi_label:
            return [row.hard_label]
        return [at for at, share in enumerate(row.label) if share >= 0.5]

    @property
    def distinct(self) -> float:
        """Distinct sentences per row."""
        return len(self._texts) / max(1, self.rows)

    @property
    def mean_words(self) -> float:
        """Mean words per row."""
        return self.words / max(1, self.rows)

    def figures(self) -> dict[str, float]:
        """The figures as a log or a tracker takes them: shares of the rows."""
        count = max(1, self.rows)
        return {
            "generated_rows": float(self.rows),
            "doubtful_share": self.doubtful / count,
            "redrawn_share": self.redrawn / count,
            "relabelled_share": self.relabelled / count,
            "copied_share": self.copies / count,
            "cut_share": self.cut / count,
            "distinct_share": self.distinct,
            "mean_words": self.mean_words,
        }

    def __str__(self) -> str:
        found = ", ".join(f"{name} {self.events[name]}" for name in EVENTS if self.events[name])
        line = (
            f"{self.rows} rows: {self.doubtful} doubtful{f' ({found})' if found else ''}, "
            f"{self.redrawn} redrawn, {self.cut} cut, {self.relabelled} relabelled, "
            f"{self.copies} copied from a training row; {self.distinct:.0%} distinct, "
            f"{self.mean_words:.1f} words on average"
        )
        if self.downweighted:
            line += f", {self.downweighted} with less weight"
        if self.texts:
            line += f", {self.invented} with names or numbers of no parent"
        return line


def summarize(rows: Iterable[MixedExample]) -> RowSummary:
    """Count generated rows: doubtful, redrawn, relabelled, copied, distinct, per class."""
    summary = RowSummary()
    summary.add(rows)
    return summary


def count_words(text: str) -> int:
    """Words of a text; of both sides of a pair."""
    return len(text.replace(MARK, " ").split())


def mean_words(texts: Sequence[str]) -> float:
    """Mean words per text."""
    return sum(map(count_words, texts)) / max(1, len(texts))
