"""Renders tables, plots and sentences as one self-contained HTML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from mixup_hf import errors


@dataclass(frozen=True)
class TableOf:
    """A table in a report."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class PlotOf:
    """A plot in a report.

    Attributes:
        title: Heading.
        svg: The plot.
        note: What it shows.
        tall: It is as high as two others.
    """

    title: str
    svg: str
    note: str
    tall: bool = False
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True)
class Bar:
    """An opinion about a text, as parts of a bar.

    Attributes:
        who: Whose opinion.
        verdict: The class with the largest share.
        parts: Share, colour number and class of each part.
    """

    who: str
    verdict: str
    parts: Sequence[tuple[float, int, str]]


@dataclass(frozen=True)
class VotesOf:
    """Opinions about some texts.

    Attributes:
        title: Heading.
        note: What is shown.
        legend: Colour number and class.
        texts: Each text with the opinions about it.
    """

    title: str
    note: str
    legend: Sequence[tuple[int, str]]
    texts: Sequence[tuple[str, Sequence[Bar]]]
    kind: ClassVar[str] = "votes"


@dataclass(frozen=True)
class Section:
    """A part of the page, with what is in it in order."""

    title: str
    blocks: Sequence[TableOf | PlotOf | VotesOf]
    note: str = ""


@dataclass(frozen=True)
class Tile:
    """A figure at the top of the page."""

    name: str
    value: str
    note: str = ""


def render(
    title: str,
    lead: Sequence[str],
    sections: Sequence[Section],
    samples: Sequence[Any],
    shown: int,
    tiles: Sequence[Tile] = (),
) -> str:
    """Render the page as HTML.

    Args:
        title: Title of the page.
        lead: Paragraphs before everything else.
        sections: What there is, in order; empty ones are left out.
        samples: Generated rows to show, as `report.Made` objects.
        shown: Number of samples shown before the reader expands the list.
        tiles: Figures shown above everything else.
    """
    jinja2 = errors.optional("jinja2", "report", "A report")
    source = (files("mixup_hf.evaluation.report") / "report.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(source)
    page: str = template.render(
        title=title,
        lead=lead,
        tiles=tiles,
        sections=[section for section in sections if section.blocks],
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
