"""Measures and shows intrusion: same-class pairs (the null) next to pairs of two classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from mixup_hf.data.tables import LabelledTexts
    from mixup_hf.intervals import Rate
    from mixup_hf.inverter.model import Inverter
    from mixup_hf.judging import IntrusionReport

_PAIRINGS = ("same_class", "cross_class")


def measure(
    inverter: Inverter, table: LabelledTexts, weights: str, num_rows: int, seed: int
) -> dict[str, IntrusionReport]:
    """Return a report per pairing, on rows that are judged but not repaired."""
    from mixup_hf.config import MixupConfig
    from mixup_hf.judging import intrusion_report
    from mixup_hf.training.inversed import InversedMixup

    reports = {}
    for pairing in _PAIRINGS:
        config = MixupConfig(
            pairing=pairing,
            weights=weights,
            intrusion="keep",
            form="free",
            label_source="parents",
            own_texts="off",
            seed=seed,
        )
        mixup = InversedMixup(inverter, table.texts, table.labels, config=config)
        rows = mixup.generate(num_rows)
        reports[pairing] = intrusion_report(rows, mixup.producer.embeddings())
    return reports


def measure_judges(inverter: Inverter, table: LabelledTexts, seed: int) -> dict[str, Rate | str]:
    """Return each judge's false-alarm rate on unseen real rows, or why it cannot be measured."""
    import torch

    from mixup_hf import registry
    from mixup_hf.data.targets import class_indices
    from mixup_hf.judging.judges import JudgeInputs, build_judge
    from mixup_hf.judging.report import false_alarms

    indices, names = class_indices(table.labels, None, None)
    targets, embeddings = torch.eye(len(names))[indices], inverter.encode(table.texts)
    rates: dict[str, Rate | str] = {}
    for name in registry.names("judge"):
        try:
            rates[name] = false_alarms(
                lambda seen, labels, name=name: build_judge(  # type: ignore[misc]
                    name, JudgeInputs((), seen, labels, inverter, names, seed=seed)
                ),
                *(table.texts, embeddings, targets),
                seed=seed,
            )
        except ValueError as error:  # too few rows of a class for this judge
            rates[name] = str(error)
    return rates


def show_judges(console: Console, rates: Mapping[str, Rate | str]) -> None:
    """Print how often each judge wrongly flags real rows."""
    for name, rate in rates.items():
        if isinstance(rate, str):
            console.print(f"{name}: not measured. {escape(rate)}")
            continue
        shown = f"{rate.share:.1%} of {rate.of} real rows it had not seen were doubted"
        console.print(f"{name}: {shown} ({rate.low:.1%} to {rate.high:.1%}; 5 % asked for)")


def show(console: Console, reports: Mapping[str, IntrusionReport]) -> None:
    """Print the rates with their Wilson intervals."""
    shown = Table("doubtful sentences", *reports, title="Intrusion (real rows trigger at 5 %)")
    shown.add_row("all", *(str(report.overall) for report in reports.values()))
    for part in ("by_event", "by_lam", "by_distance"):
        shown.add_section()
        groups = [getattr(report, part) for report in reports.values()]
        for name in sorted({name for group in groups for name in group}):
            rates = [str(group[name]) if name in group else "" for group in groups]
            shown.add_row(escape(name), *rates)
    console.print(shown)


def write(folder: Path, reports: Mapping[str, IntrusionReport], title: str) -> list[Path]:
    """Write intrusion.json, and intrusion.png if matplotlib is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "intrusion.json"
    content = {"title": title, **{name: asdict(report) for name, report in reports.items()}}
    file.write_text(json.dumps(content, indent=2) + "\n")
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return [file]
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
    parts = (("by_lam", "larger weight of the two"), ("by_distance", "likeness of the parents"))
    for axis, (part, label) in zip(axes, parts, strict=True):
        for name, report in reports.items():
            rates = getattr(report, part)
            shares = [rate.share for rate in rates.values()]
            below = [rate.share - rate.low for rate in rates.values()]
            above = [rate.high - rate.share for rate in rates.values()]
            axis.errorbar(list(rates), shares, yerr=(below, above), marker="o", label=name)
        axis.set(xlabel=label)
    axes[0].set(ylabel="share of doubtful sentences, 95 % interval")
    axes[0].legend()
    figure.suptitle(title)
    picture = folder / "intrusion.png"
    figure.savefig(picture, dpi=130)
    plt.close(figure)
    return [file, picture]
