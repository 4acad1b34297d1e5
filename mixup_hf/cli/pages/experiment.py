"""Runs an experiment and shows its results: `mixup-hf evaluate CONFIG.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

from mixup_hf.config.load import load_config
from mixup_hf.evaluation.experiment.config import ExperimentConfig

_SHOWN = ("arm", "seeds", "accuracy", "difference", "p, corrected", "ECE")


def run(config: Path | None, words: Sequence[str]) -> None:
    """Run the remaining jobs of an experiment, then show and write its tables."""
    settings = load_config(ExperimentConfig, config, words)
    from mixup_hf.evaluation.experiment.primary import contrast, in_words
    from mixup_hf.evaluation.experiment.runner import Experiment, jobs  # slow to import
    from mixup_hf.evaluation.experiment.summary import (
        cells,
        markdown,
        summarise,
        together,
        unequal_steps,
    )
    from mixup_hf.evaluation.report.html import report_of_an_experiment

    experiment = Experiment(settings)
    planned = jobs(settings)
    done = [job for job in experiment.results.read() if job in planned]
    with tqdm(total=len(planned), initial=len(done), desc="runs", unit="run") as bar:
        runs = experiment.run(lambda _: bar.update())
    made = {job: runs[job] for job in planned if job in runs}
    found, all_sets = summarise(made, settings.baseline), together(made, settings.baseline)
    primary = None if settings.primary is None else contrast(made, settings.primary)
    shown: dict[str, Any] = {
        "regime": settings.regime + unequal_steps(made),
        "primary": primary,
    }
    console = Console()
    if primary is not None:
        console.print(f"Primary contrast: {in_words(primary)}".replace("`", ""))
    for (data, shots), arms in found.items():
        title = f"{data}, {shots} rows per class; differences to {settings.baseline}"
        table = Table(*_SHOWN, title=title)
        for arm in arms:
            row = cells(arm)
            table.add_row(*(row[heading] for heading in _SHOWN))
        console.print(table)
    text = markdown(found, settings.baseline, all_sets, **shown)
    written = Path(settings.output_dir) / "results.md"
    written.write_text(text, encoding="utf-8")
    console.print(f"In words, and as Markdown: {written}", soft_wrap=True)
    page = written.with_name("report.html")
    title = f"An experiment: {written.parent.name}"
    html = report_of_an_experiment(title, found, settings.baseline, all_sets, **shown)
    page.write_text(html, encoding="utf-8")
    console.print(f"As a page: {page}", soft_wrap=True)
    missing = len(planned) - sum(job in runs for job in planned)
    if missing:
        console.print(f"{missing} runs are still being made by other processes.")
