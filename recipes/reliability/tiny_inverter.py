"""A tiny inverter in memory and on disk, generated rows, and what must hold for such.

`FAST` are the settings with which a trial generates a few rows in no time.
"""

from __future__ import annotations

import math
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import nasty
from trials import Fault

from mixup_hf import Inverter

FAST: dict[str, Any] = {"max_new_tokens": 3, "chunk_size": 4, "reuse": False}
FAST |= {"label_source": "parents", "intrusion": "off", "on_unreadable": "off"}


@cache
def inverter() -> Inverter:
    """A tiny inverter with random weights, made once."""
    from tiny import make_inverter

    return make_inverter()


@cache
def aligner() -> str:
    """The same on disk, for commands: the folder of its aligner, which names its partners."""
    folder = Path(tempfile.mkdtemp(prefix="aligner-"))
    made = inverter()
    save_partners(made, folder)
    partners = {"encoder": str(folder / "encoder"), "llm": str(folder / "llm")}
    made.aligner.config.update(partners)
    return str(made.save_pretrained(folder / "aligner"))


def save_partners(made: Inverter, folder: Path) -> None:
    """Save encoder and LLM as folders of those names, with their tokenizers."""
    made.encoder.model.save_pretrained(folder / "encoder")
    made.encoder.tokenizer.save_pretrained(folder / "encoder")
    made.llm.save_pretrained(folder / "llm")
    made.tokenizer.save_pretrained(folder / "llm")


def good_rows(count: int = 6) -> tuple[list[str], list[dict[str, Any]]]:
    """Texts to train on, and records of rows generated from them as a file of rows holds them."""
    from tiny import make_producer

    from mixup_hf.data.row_files import mixed_json

    producer = make_producer(8, 3)
    made = producer.produce(0, count)
    return list(producer.texts), [mixed_json(row, producer.texts, ("a", "b", "c")) for row in made]


def check_rows(rows: list[Any], texts: list[str], count: int, classes: int | None) -> None:
    """Require that generated rows are such as may be trained on."""
    if len(rows) != count:
        raise Fault(f"{len(rows)} rows instead of {count}")
    for row in rows:
        numbers = (*row.label, row.lam, row.weight, *row.shares)
        if not all(isinstance(each, (int, float)) and math.isfinite(each) for each in numbers):
            raise Fault(f"a row with a value that is no number: {row}")
        if classes and (len(row.label) != classes or min(row.label) < 0):
            raise Fault(f"a label that is no distribution: {row.label}")
        if classes and abs(sum(row.label) - 1) > 1e-3:
            raise Fault(f"shares that do not sum to 1: {row.label}")
        if not all(0 <= parent < len(texts) for parent in row.parents):
            raise Fault(f"parents that do not exist: {row.parents}")
        if not isinstance(row.text, str) or not nasty.encodable(row.text) or not row.text.strip():
            raise Fault(f"a text that no model can read: {row.text!r}")
        if row.weight < 0:
            raise Fault(f"a negative weight: {row.weight}")
