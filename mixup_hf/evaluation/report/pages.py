"""Renders tables, plots and sentences as one self-contained HTML file."""

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
    """A table in a report."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class PlotOf:
    """A plot in a report."""

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
    """Render the page as HTML.

    Args:
        title: Title of the page.
        lead: Paragraphs before everything else.
        tables: Tables, in order.
        drawn: Plots, in order.
        samples: Generated rows to show, as `report.Made` objects.
        shown: Number of samples shown before the reader expands the list.
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
    """Read a JSON file from a run's folder.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged.
    """
    if not file.is_file():
        raise errors.MissingFile(
            f"There is no {str(file)!r}. A report is about the `output_dir` of mixup-hf finetune."
        )
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, or not text
        raise errors.InvalidInput(
            f"{file} is damaged ({error}). Run again into its folder."
        ) from error
