"""A file of generated rows, made from twelve training texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny import make_producer, make_rows
from trainer_runs import LABELS

from mixup_hf.data.row_files import mixed_json
from mixup_hf.types import MixedExample

NAMES = ["business", "politics", "sport"]
TEXTS, INDICES = make_rows(12, LABELS)


def make_mixed() -> list[MixedExample]:
    return make_producer(12, LABELS).produce(0, 6)


class MixedFile:
    """Writes rows to a file; changes of the first line as keyword arguments."""

    def __init__(self, file: Path, rows: Sequence[MixedExample]) -> None:
        self.file, self.rows = file, rows

    def __call__(self, given: Sequence[MixedExample] = (), **changes: Any) -> Path:
        lines = [mixed_json(row, TEXTS, NAMES) for row in given or self.rows]
        lines[0] |= changes
        self.file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return self.file
