"""A page: tables, plots and sentences in one HTML file; styles are in it, so it opens anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from mixup_hf import errors


@dataclass(frozen=True)
class TableOf:
    """A table of a report."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class PlotOf:
    """A plot of a report."""

    title: str
    svg: str
    note: str


def render(
    title: str,
    lead: Sequence[str],
    tables: Sequence[TableOf],
    drawn: Sequence[PlotOf],
    samples: Sequence[Any],
    shown: int,
) -> str:
    """The page.

    Args:
        title: Its title.
        lead: Paragraphs before everything else.
        tables: In order.
        drawn: Plots, in order.
        samples: Generated rows, as `report.Made` shows them.
        shown: How many of them are shown before the reader asks for more.
    """
    jinja2 = errors.optional("jinja2", "report", "A report")
    source = (files("mixup_hf.evaluation.report") / "report.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(source)
    page: str = template.render(
        title=title,
        lead=lead,
        tables=tables,
        plots=drawn,
        samples=samples,
        shown=shown,
        version=version("mixup_hf"),
    )
    return page


def read_json(file: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is damaged.
    """
    if not file.is_file():
        raise errors.MissingFile(
            f"There is no {str(file)!r}. A report is about the `output_dir` of mixup-hf finetune."
        )
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise errors.InvalidInput(
            f"{file} is damaged ({error}). Run again into its folder."
        ) from error
