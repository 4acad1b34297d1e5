"""What `mixup-hf evaluate --structure` measures, shows and writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from mixup_hf.data.tables import LabelledTexts
    from mixup_hf.evaluation.structure import StructureReport
    from mixup_hf.inverter.model import Inverter


def measure(
    inverter: Inverter,
    table: LabelledTexts,
    weights: Sequence[str],
    num_rows: int,
    generations: int,
    seed: int,
) -> list[StructureReport]:
    """Return one report per distribution of λ."""
    from mixup_hf.data.targets import class_indices
    from mixup_hf.evaluation.structure import measure_structure

    labels, names = class_indices(table.labels, None, None)
    with tqdm(total=len(weights) * generations, desc="generations") as bar:
        return [
            measure_structure(
                inverter,
                table.texts,
                labels,
                names,
                spec,
                num_rows=num_rows,
                generations=generations,
                seed=seed,
                on_generation=bar.update,
            )
            for spec in weights
        ]


def show(console: Console, reports: Sequence[StructureReport]) -> None:
    """Print the tables."""
    for report in reports:
        title = f"{escape(report.weights)}: theory keeps {report.expected:.1%} of the variance"
        table = Table("class", "rows", "variance ratio", "Frobenius", "energy", "p", title=title)
        for kind, classes in (("mixes", report.before), ("sentences", report.after)):
            for name, each in classes.items():
                figures = (each.variance_ratio, each.frobenius, each.energy, each.p_value)
                table.add_row(escape(name), kind, *(f"{figure:.3f}" for figure in figures))
        console.print(table)
    kinds = [(report, kind) for report in reports for kind in ("mixes", "sentences")]
    headings = (f"{escape(report.weights)} {kind}" for report, kind in kinds)
    curves = Table("generation", *headings, title="Variance ratio by generation")
    lines = [
        report.curve_before if kind == "mixes" else report.curve_after for report, kind in kinds
    ]
    for number, ratios in enumerate(zip(*lines, strict=True), start=1):
        curves.add_row(str(number), *(f"{ratio:.2f}" for ratio in ratios))
    console.print(curves)


def write(folder: Path, reports: Sequence[StructureReport], title: str) -> list[Path]:
    """Write structure.json, and structure.png if matplotlib is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "structure.json"
    content = {"title": title, "reports": [asdict(report) for report in reports]}
    file.write_text(json.dumps(content, indent=2) + "\n")
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return [file]
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    steps = range(1, len(reports[0].curve_before) + 1)
    for report in reports:
        (line,) = axis.plot(steps, report.curve_before, linestyle="--")
        axis.plot(steps, report.curve_after, color=line.get_color(), label=report.weights)
    axis.axhline(1, color="0.7")
    axis.set(xlabel="generation", ylabel="variance ratio (dashed: not decoded)", title=title)
    axis.legend()
    picture = folder / "structure.png"
    figure.savefig(picture, dpi=130)
    plt.close(figure)
    return [file, picture]
