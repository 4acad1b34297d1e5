"""The run beside its baseline: the same steps on real rows alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixup_hf.evaluation.report import drawing, plots
from mixup_hf.evaluation.report.pages import PlotOf, Section, TableOf, Tile
from mixup_hf.intervals import Rate, wilson

METRICS = {
    "test_accuracy": "accuracy",
    "test_macro_f1": "macro F1",
    "test_minority_recall": "recall of the rarest class",
    "test_micro_f1": "micro F1",
    "test_exact_match": "rows with all classes right",
    "test_mae": "mean absolute error",
    "test_rmse": "root mean squared error",
    "test_spearman": "rank correlation (Spearman)",
    "test_ece": "expected calibration error",
    "test_brier": "Brier score",
    "test_loss": "negative log-likelihood",
}
_WITH, _WITHOUT = "with mixing", "without"
Panel = dict[str, tuple[float, float | None, float | None]]


def tiles_of(metrics: Mapping[str, Any]) -> list[Tile]:
    """The figures at the top of a run's page."""
    tiles = [_tile(metrics, name) for name in ("test_accuracy", "test_loss") if name in metrics]
    if metrics.get("mixed_rows"):
        drawn = f"used {metrics['mixed_draws']} times" if "mixed_draws" in metrics else ""
        tiles.append(Tile("generated sentences", str(metrics["mixed_rows"]), drawn))
    return tiles


def baseline_section(metrics: Mapping[str, Any], folder: Path) -> Section:
    """Plots and a table of the run and its baseline; empty without a baseline.

    Args:
        metrics: The content of `metrics.json`.
        folder: The run's folder, for its name.
    """
    if "comparison" not in metrics:
        return Section("", [])
    found, baseline = metrics["comparison"], metrics["baseline"]
    rows = [
        (
            METRICS.get(name, name),
            *(f"{each[key]:.3f}" for key in ("mixup", "baseline")),
            _gap(each),
        )
        for name, each in found["metrics"].items()
    ]
    blocks: list[PlotOf | TableOf] = []
    if drawing.available():
        panels = _panels(metrics, baseline)
        if panels:
            note = "Lines on accuracies are 95 % Wilson intervals; less is better for the loss."
            blocks.append(PlotOf("Test scores", plots.side_by_side(panels), note))
        if "only_mixup_correct" in found:
            counts = _right_and_wrong(metrics)
            blocks.append(PlotOf("Which test rows", plots.parts(counts), _test_in_words(found)))
    head = ("on test rows", _WITH, _WITHOUT, "difference [95 % interval]")
    blocks.append(TableOf("All scores", head, rows, _reading(found)))
    note = (
        f"{folder.name} and a baseline with the same seed, head, {baseline['steps']} steps and "
        "rows per step. The baseline's rows are all real, so it sees each of them more often."
    )
    return Section("With mixing and without", blocks, note)


def _tile(metrics: Mapping[str, Any], name: str) -> Tile:
    if "baseline" not in metrics or name not in metrics["baseline"]:
        return Tile(METRICS[name], f"{metrics[name]:.3f}")
    return Tile(METRICS[name], f"{metrics[name]:.3f}", f"{metrics['baseline'][name]:.3f} without")


def _panels(metrics: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, Panel]:
    """What is plotted of both: the accuracy with its interval, and the loss."""
    panels: dict[str, Panel] = {}
    runs = {_WITH: metrics, _WITHOUT: baseline}
    if "test_accuracy" in metrics:
        rates = {name: _accuracy(each) for name, each in runs.items()}
        panels["accuracy"] = {
            name: (each.share, each.low, each.high) for name, each in rates.items()
        }
    if "test_loss" in metrics:
        panels["negative log-likelihood"] = {
            name: (each["test_loss"], None, None) for name, each in runs.items()
        }
    return panels


def _accuracy(metrics: Mapping[str, Any]) -> Rate:
    return wilson(round(metrics["test_accuracy"] * metrics["test_rows"]), metrics["test_rows"])


def _right_and_wrong(metrics: Mapping[str, Any]) -> dict[str, int]:
    """Test rows by which of the two predicted them correctly; of several classes, all of them."""
    found, rows = metrics["comparison"], metrics["test_rows"]
    ours, others = found["only_mixup_correct"], found["only_baseline_correct"]
    right = metrics.get("test_accuracy", metrics.get("test_exact_match", 0.0))
    both = max(0, round(right * rows) - ours)
    return {
        "both right": both,
        f"only {_WITH}": ours,
        f"only {_WITHOUT}": others,
        "both wrong": max(0, rows - both - ours - others),
    }


def _gap(each: Mapping[str, float]) -> str:
    gap = f"{each['difference']:+.3f}"
    return f"{gap} [{each['low']:+.3f}, {each['high']:+.3f}]" if "low" in each else gap


def _test_in_words(found: Mapping[str, Any]) -> str:
    return (
        f"Exact McNemar test on the rows that only one of the two got right: p = {found['p']:.3f}."
    )


def _reading(found: Mapping[str, Any]) -> str:
    test = (
        ""
        if found["test"] == "mcnemar"
        else (f"Wilcoxon signed-rank test on absolute errors: p = {found['p']:.3f}. ")
    )
    return (
        f"{test}Intervals are paired bootstrap over the test rows. One seed: another one may turn "
        "the difference round; mixup-hf evaluate compares over several."
    )
