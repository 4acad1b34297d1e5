"""What all parts of `speed.py` start from: texts, and settings without judges."""

from __future__ import annotations

import json
from typing import Any

from mixup_hf import MixupConfig, fetch_embedded


def bare(**settings: Any) -> MixupConfig:
    """Sentences as they are decoded, not judged, with their parents' labels."""
    off = {"label_source": "parents", "intrusion": "off", "own_texts": "off"}
    return MixupConfig(**(off | settings))


def headlines() -> tuple[list[str], list[str]]:
    """Texts and labels of the embedded data set."""
    lines = (fetch_embedded("bbc_headlines") / "train.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in lines.strip("\n").split("\n")]
    return [row["text"] for row in rows], [row["label"] for row in rows]
