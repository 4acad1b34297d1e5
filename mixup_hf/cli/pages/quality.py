"""What `mixup-hf evaluate --quality` measures, shows and writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from mixup_hf.intervals import rounded

if TYPE_CHECKING:
    from mixup_hf.data.tables import LabelledTexts
    from mixup_hf.evaluation.text_quality import Figure
    from mixup_hf.inverter.model import Inverter


def measure(
    inverter: Inverter, table: LabelledTexts, rows: Path, perplexity: str | None, seed: int
) -> list[Figure]:
    """Compute quality figures for the rows in a file, generated from the texts of a table."""
    import torch

    from mixup_hf.data.row_files import read_mixed
    from mixup_hf.data.targets import class_indices
    from mixup_hf.evaluation.perplexity import LanguageModel
    from mixup_hf.evaluation.text_quality import measure_quality

    labels, names = class_indices(table.labels, None, None)
    made = read_mixed(rows, table.texts, names)
    model = None if perplexity is None else LanguageModel(perplexity, device=inverter.device)
    return measure_quality(
        made,
        table.texts,
        torch.eye(len(names))[labels],
        inverter,
        log_likelihood=model,
        seed=seed,
    )


def show(console: Console, figures: Sequence[Figure]) -> None:
    """Print the figures."""
    table = Table("", "generated", "real", title="Generated rows beside the real ones")
    for figure in figures:
        table.add_row(figure.name, said(figure.generated), said(figure.real))
    console.print(table)
    for figure in figures:
        console.print(f"{figure.name}: {figure.note}", soft_wrap=True, highlight=False)


def write(folder: Path, figures: Sequence[Figure], title: str) -> Path:
    """Write quality.json."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "quality.json"
    content = {"title": title, "figures": [asdict(figure) for figure in figures]}
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return file


def said(value: object) -> str:
    """Format a figure as text; empty for None."""
    return "" if value is None else rounded(value) if isinstance(value, float) else str(value)
