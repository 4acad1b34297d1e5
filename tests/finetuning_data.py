"""Rows for tests of fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny import make_rows

NAMES = ["news", "sport", "film"]


def write_rows(path: Path, labels: list[Any], start: int = 0) -> Path:
    texts = make_rows(start + len(labels))[0][start:]
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def classes(count: int) -> list[str]:
    return [NAMES[row % 3] for row in range(count)]
