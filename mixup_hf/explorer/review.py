"""Generated rows under review: kept or rejected, texts and labels edited, and written to a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mixup_hf import errors
from mixup_hf.data.row_files import mixed_json
from mixup_hf.data.row_writer import RowWriter
from mixup_hf.data.targets import MULTI_LABEL, REGRESSION
from mixup_hf.explorer.labelled_set import LabelledSet
from mixup_hf.types import MixedExample

Decision = Literal["open", "kept", "rejected"]
# `mitigation` of a row whose text or label a person has changed.
EDITED = "edited"
_DIGITS = 4  # of votes, as elsewhere


@dataclass(frozen=True)
class Draft:
    """A generated row under review.

    Attributes:
        row: As it is now.
        generated: As it was generated.
        batch: With how many rows it was generated, itself included.
        decision: What was decided.
    """

    row: MixedExample
    generated: MixedExample
    batch: int
    decision: Decision = "open"

    @property
    def edited(self) -> bool:
        """Whether its text or label has been changed."""
        return self.row != self.generated


class Review:
    """All rows under review, in the order they were generated.

    Args:
        data: The labelled texts they are made from.

    Attributes:
        drafts: The rows.
    """

    def __init__(self, data: LabelledSet) -> None:
        self.data = data
        self.drafts: list[Draft] = []

    def sample(self, count: int) -> int:
        """Generate further rows; returns the place of the first of them.

        Raises:
            InvalidInput: `count` is not in [1, 1000], or a setting does not fit the data set.
        """
        rows = self.data.generate(count)
        self.drafts += [Draft(row, row, len(rows)) for row in rows]
        return len(self.drafts) - len(rows)

    def decide(self, place: int, decision: Decision) -> None:
        """Keep or reject a row, or open it again.

        Raises:
            InvalidInput: There is no such row.
        """
        self._check(place)
        self.drafts[place] = replace(self.drafts[place], decision=decision)

    def edit(self, place: int, text: str, label: Any = None) -> bool:
        """Give a row another text, another label, or both.

        An edited text is voted on anew. Its soft label stays as it is unless a label is given.

        Args:
            place: Which row.
            text: Its text.
            label: A class name; a list of names for several labels per row; a number for
                regression. None leaves the label as it is.

        Returns:
            Whether anything was changed.

        Raises:
            InvalidInput: There is no such row; the text is empty; the label is no class, no number.
        """
        self._check(place)
        draft = self.drafts[place]
        text = " ".join(text.split())
        errors.texts("text", [text])
        row = draft.row
        for known in (draft.generated.text, row.text):  # shown in one line, it is the same text
            text = known if text == " ".join(known.split()) else text
        if text != row.text:
            row = replace(row, text=text, judges={}, votes=self._votes(row, text))
        if label is not None:
            row = replace(row, label=self._target(label))
        if row == draft.row:
            return False
        same = (row.text, row.label) == (draft.generated.text, draft.generated.label)
        copied = draft.generated.is_copy and row.text == draft.generated.text
        if same:
            row = draft.generated
        elif not copied:  # whose text is a training text still
            row = replace(row, mitigation=EDITED)
        self.drafts[place] = replace(draft, row=row)
        return True

    def kept(self) -> list[MixedExample]:
        """The rows that were kept, as they are now."""
        return [draft.row for draft in self.drafts if draft.decision == "kept"]

    def counts(self) -> dict[Decision, int]:
        """How many rows were decided how."""
        decisions = [draft.decision for draft in self.drafts]
        return {each: decisions.count(each) for each in ("open", "kept", "rejected")}

    def next_open(self, place: int) -> int:
        """The next row after `place` that is open, from the start again; `place` if none is."""
        count = len(self.drafts)
        later = [(place + step) % count for step in range(1, count + 1)]
        return next((each for each in later if self.drafts[each].decision == "open"), place)

    def export(self, path: str | Path) -> int:
        """Write the kept rows to a file that `OfflineMixup` trains on; returns how many.

        Args:
            path: jsonl, csv or parquet, by its suffix; its settings go to `FILE.run.json`.

        Raises:
            InvalidInput: No row was kept, or the file cannot be written.
            MissingFile: Its folder does not exist.
        """
        rows = self.kept()
        if not rows:
            raise errors.InvalidInput("No row has been kept yet. Keep at least one, then export.")
        indices = self.data.written()["indices"]
        records = [self._record(row, indices) for row in rows]
        with RowWriter(path, run=self._run()) as writer:
            writer.write(records)
        return len(rows)

    def _run(self) -> dict[str, Any]:
        """What the kept rows share."""
        batches = {draft.batch for draft in self.drafts if draft.decision == "kept"}
        run = dict(self.data.run(max(batches)))
        if len(batches) > 1:  # a row is generated again from the size of its own batch
            del run["num_samples"]
        return run

    def _record(self, row: MixedExample, indices: bool) -> dict[str, Any]:
        problem_type = self.data.problem_type
        return mixed_json(row, None, self.data.names, problem_type=problem_type, indices=indices)

    def _check(self, place: int) -> None:
        if not 0 <= place < len(self.drafts):
            raise errors.InvalidInput("There is no such row. Generate rows first.")

    def _votes(self, row: MixedExample, text: str) -> dict[str, tuple[float, ...]]:
        """The votes on an edited text; none where the row had none."""
        if not row.votes:
            return {}
        members = self.data.vote([text]).members
        return {
            name: tuple(round(value, _DIGITS) for value in votes[0].tolist())
            for name, votes in members.items()
        }

    def _target(self, label: Any) -> tuple[float, ...]:
        """A label that a person gave, as a target (C,)."""
        names = self.data.names
        if self.data.problem_type == REGRESSION:
            return (_number(label),)
        held = list(label) if self.data.problem_type == MULTI_LABEL else [label]
        for name in held:
            errors.one_of("label", name, names)
        return tuple(float(name in held) for name in names)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise errors.bad("label", "be a number", value) from None
