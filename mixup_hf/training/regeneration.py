"""Generated rows made again from what they say of themselves."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from mixup_hf import errors
from mixup_hf.config import MixupConfig
from mixup_hf.data.rows import mixed_json
from mixup_hf.data.tables import LabelledTexts, read_table
from mixup_hf.types import MixedExample


def augmented_json(
    row: MixedExample, table: LabelledTexts, names: list[str], run: dict[str, Any]
) -> dict[str, Any]:
    """A line of `mixup-hf augment`: the row as users read it, and the run that made it."""
    return mixed_json(row, table.texts, names) | {"aligner": run["settings"]["aligner"], "run": run}


def run_record(
    data: Path,
    columns: tuple[str, str],
    table: LabelledTexts,
    config: MixupConfig,
    num_samples: int,
) -> dict[str, Any]:
    """What a run of `mixup-hf augment` depends on: everything that a row is a function of.

    Args:
        data: File of the labelled texts.
        columns: Its text and its label column.
        table: Its content.
        config: How rows are made; only what differs from the defaults is recorded.
        num_samples: Rows of the run: the last chunk's composition depends on it.
    """
    plain = MixupConfig()
    settings = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name == "aligner" or getattr(config, field.name) != getattr(plain, field.name)
    }
    return {
        "data": str(data),
        "data_sha256": table_digest(table),
        "columns": list(columns),
        "num_samples": num_samples,
        "settings": settings,
    }


def table_digest(table: LabelledTexts) -> str:
    """SHA-256 of texts and labels, in their order."""
    content = json.dumps([table.texts, [str(label) for label in table.labels]])
    return hashlib.sha256(content.encode()).hexdigest()


def read_line(place: str) -> dict[str, Any]:
    """The row at `FILE:LINE` (counted from 1).

    Raises:
        ValueError: `place` is not of that form, there is no such line, or it is no augmented row.
        FileNotFoundError: There is no such file.
    """
    name, _, number = place.rpartition(":")
    if not name or not number.isdigit() or int(number) < 1:
        raise errors.bad("--from-row", "be FILE:LINE, lines counted from 1", place)
    file = Path(name)
    if not file.is_file():
        raise errors.MissingFile(f"--from-row: there is no file {name!r}.")
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if int(number) > len(lines):
        raise errors.bad("--from-row", f"name one of {len(lines)} lines", place)
    row: dict[str, Any] = json.loads(lines[int(number) - 1])
    if "run" not in row:
        raise errors.InvalidInput(
            f"--from-row: {place} does not say which run made it. Only rows that "
            "`mixup-hf augment` wrote can be made again."
        )
    return row


def regenerate(row: dict[str, Any], data: Path | None = None) -> dict[str, Any]:
    """Make a line of `mixup-hf augment` again: its whole chunk is decoded, as it was then.

    Args:
        row: The line.
        data: The labelled texts, if they lie elsewhere now.

    Raises:
        ValueError: The labelled texts, or the aligner, are not those the row was made from.
    """
    from mixup_hf.training.inversed import InversedMixup

    run = row["run"]
    table = read_table(data or Path(run["data"]), *run["columns"])
    if table_digest(table) != run["data_sha256"]:
        raise errors.InvalidInput(
            f"{data or run['data']} is not what it was when the row was made: its texts, its "
            "labels or their order have changed. Give the file as it was with --data."
        )
    settings = dict(run["settings"])
    if "judges" in settings:
        settings["judges"] = tuple(settings["judges"])
    aligner = settings.pop("aligner")
    # The engine of then, whatever this machine would choose; nothing that was kept is looked up.
    engine, _, dtype = row["engine"].partition(":")
    if engine == "vllm":
        raise errors.InvalidInput(
            f"The row was decoded by a server, {row['engine']!r}, whose arithmetic is not that of "
            "this process: it cannot be made again here."
        )
    settings |= {"engine": engine, "reuse": False}
    mixup = InversedMixup.from_pretrained(
        aligner, table.texts, table.labels, dtype=getattr(torch, dtype), **settings
    )
    if mixup.inverter.fingerprint != row["aligner_fingerprint"]:
        raise errors.InvalidInput(
            f"The aligner {aligner!r} has the fingerprint {mixup.inverter.fingerprint}, but the "
            f"row was made by {row['aligner_fingerprint']}. Pin its revision, or give the folder "
            "of the old one."
        )
    chunk = mixup.producer.plan.chunk_of(row["index"])
    made = mixup.producer.chunk(row["epoch"], chunk, run["num_samples"])
    (again,) = (each for each in made if each.index == row["index"])
    return augmented_json(again, table, mixup.label_names, run)
