"""One HTML file about a run or an experiment; styles and plots are in it, so it opens anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixup_hf.data.row_files import read_shown
from mixup_hf.evaluation.experiment.summary import (
    TOGETHER,
    Summary,
    Together,
    cells,
    explained,
    in_words,
    together_cells,
)
from mixup_hf.evaluation.report import plots
from mixup_hf.evaluation.report.measured import measured_elsewhere
from mixup_hf.evaluation.report.pages import PlotOf, TableOf, read_json, render
from mixup_hf.evaluation.text_quality import copied_share, matched_quality
from mixup_hf.intervals import wilson
from mixup_hf.judging import intrusion_report
from mixup_hf.types import Encodes, MixedExample

_MOST_SAMPLES = 200
_SHOWN_FIRST = 20
_MOST_POINTS = 400
_METRICS = {
    "test_accuracy": "accuracy",
    "test_macro_f1": "macro F1",
    "test_minority_recall": "recall of the rarest class",
    "test_ece": "expected calibration error",
    "test_brier": "Brier score",
    "test_loss": "negative log-likelihood",
}
_FACTS = ("train_rows", "test_rows", "steps", "mixed_rows", "mixed_draws", "seed", "seconds")


@dataclass(frozen=True)
class Made:
    """A generated row as a report shows it."""

    row: MixedExample
    parents: list[str]
    names: list[str]

    @property
    def text(self) -> str:
        """The sentence; both sides of a pair in one line."""
        return _line(self.row.text)

    @property
    def lam(self) -> float:
        """Share of the first parent."""
        return self.row.lam

    @property
    def label(self) -> str:
        """Classes with their shares."""
        shares = sorted(zip(self.row.label, self.names, strict=True), reverse=True)
        return ", ".join(f"{name} {share:.2f}" for share, name in shares if share > 0)

    @property
    def events(self) -> tuple[str, ...]:
        """What judges found."""
        return self.row.events

    @property
    def mitigation(self) -> str:
        """What was done about it."""
        return "" if self.row.mitigation == "none" else self.row.mitigation


def report_of_a_run(folder: Path, encoder: Encodes | None = None) -> str:
    """HTML about one run of `mixup-hf finetune`.

    Args:
        folder: Its `output_dir`, with `metrics.json`, and `mixed.jsonl` if it mixed.
        encoder: Embeds the texts for a map; None leaves the map out.

    What `mixup-hf evaluate --quality` or `--structure` and `mixup-hf audit` have left in the folder
    is shown, too.

    Raises:
        FileNotFoundError: There is no `metrics.json`.
        ValueError: A file is damaged.
    """
    metrics = read_json(folder / "metrics.json")
    made = _read_made(folder / "mixed.jsonl")
    drawn = _curves(folder / "history.json")
    tables = [_scores(metrics), _facts(metrics)]
    if made:
        tables.append(_quality(made))
        drawn += _about_rows(made)
        if encoder is not None and len(made) > 2:
            drawn.append(_map(made, encoder))
    tables += measured_elsewhere(folder)
    lead = [_headline(metrics), *([] if made else ["Nothing was generated in this run."])]
    shown = made[:_MOST_SAMPLES]
    return render(f"A run: {folder.name}", lead, tables, drawn, shown, _SHOWN_FIRST)


def report_of_an_experiment(title: str, summary: Summary, baseline: str, all_sets: Together) -> str:
    """HTML about an experiment.

    Args:
        title: What it is called.
        summary: What `summary.summarise` found.
        baseline: The arm that all others were compared with.
        all_sets: What `summary.together` found.
    """
    tables, drawn = [], []
    if all_sets:
        rows = together_cells(all_sets)
        body = [list(row.values()) for row in rows]
        tables.append(TableOf("All data sets", list(rows[0]), body, TOGETHER))
        gaps = {arm: (each.difference, each.low, each.high) for arm, (each, _) in all_sets.items()}
        svg = plots.differences(gaps, f"accuracy minus that of {baseline}")
        note = "Means over all pairs of runs with 95 % bootstrap intervals."
        drawn.append(PlotOf("All data sets", svg, note))
    for (data, shots), arms in summary.items():
        name = f"{data}, {shots} rows a class"
        rows = [cells(arm) for arm in arms]
        body = [list(row.values()) for row in rows]
        tables.append(TableOf(name, list(rows[0]), body, in_words(arms, baseline)))
        compared = {
            arm.arm: (arm.comparison.difference, arm.comparison.low, arm.comparison.high)
            for arm in arms
            if arm.comparison is not None
        }
        if compared:
            svg = plots.differences(compared, f"accuracy minus that of {baseline}")
            drawn.append(PlotOf(name, svg, "Means over seeds with 95 % bootstrap intervals."))
    return render(title, [explained(baseline)], tables, drawn, [], 0)


def _headline(metrics: dict[str, Any]) -> str:
    rate = wilson(round(metrics["test_accuracy"] * metrics["test_rows"]), metrics["test_rows"])
    return (
        f"Accuracy {rate.share:.1%} on {rate.of} test rows (95 % interval {rate.low:.1%} to "
        f"{rate.high:.1%}), one seed. Whether mixing helped, one run cannot tell: "
        "mixup-hf evaluate compares arms over seeds."
    )


def _scores(metrics: dict[str, Any]) -> TableOf:
    rows = [(name, f"{metrics[key]:.3f}") for key, name in _METRICS.items() if key in metrics]
    return TableOf("How good it is", ("on test rows", "value"), rows)


def _facts(metrics: dict[str, Any]) -> TableOf:
    rows = [(key.replace("_", " "), str(metrics[key])) for key in _FACTS if key in metrics]
    return TableOf("What was run", (), rows)


def _quality(made: Sequence[Made]) -> TableOf:
    parents = sorted({parent for each in made for parent in each.parents})
    ours, real = matched_quality([each.text for each in made], parents)
    copied = float(np.mean([copied_share(each.text, each.parents) for each in made]))
    rows = [
        ("texts", str(ours.texts), str(real.texts)),
        ("words, on average", f"{ours.mean_words:.1f}", f"{real.mean_words:.1f}"),
        ("unlike all before", f"{ours.unique:.1%}", f"{real.unique:.1%}"),
        ("distinct words", f"{ours.distinct_1:.3f}", f"{real.distinct_1:.3f}"),
        ("distinct pairs of words", f"{ours.distinct_2:.3f}", f"{real.distinct_2:.3f}"),
        ("longest run copied from a parent", f"{copied:.1%}", ""),
    ]
    note = f"Distinct words and pairs are counted on {ours.words} words of each."
    return TableOf("Variety", ("", "generated", "their parents"), rows, note)


def _about_rows(made: Sequence[Made]) -> list[PlotOf]:
    rows = [each.row for each in made]
    found = intrusion_report(rows)
    lams = [max(row.shares) for row in rows]
    drawn = [
        PlotOf(
            "Ratios", plots.histogram(lams, "larger share"), "Of the two parents, the larger share."
        )
    ]
    if any(row.judges for row in rows):
        svg = plots.rates(found.by_lam, "larger share")
        note = (
            f"{found.overall} of the sentences were doubtful when first made; real rows are at a "
            "rate of 5 %, where there were enough of them to calibrate on."
        )
        drawn.append(PlotOf("Sentences that do not fit their label", svg, note))
    return drawn


def _map(made: Sequence[Made], encoder: Encodes) -> PlotOf:
    from sklearn.decomposition import PCA

    names = made[0].names
    some = made[: _MOST_POINTS // 2]
    real: dict[str, str] = {}
    for each in made:
        if _pure(each):
            for parent in each.parents:
                real.setdefault(parent, names[each.row.hard_label])
    texts = [*real][: _MOST_POINTS // 2] + [each.row.text for each in some]
    classes = [*real.values()][: _MOST_POINTS // 2] + [names[each.row.hard_label] for each in some]
    flags = [False] * (len(texts) - len(some)) + [True] * len(some)
    points = PCA(2, random_state=0).fit_transform(encoder.encode(texts).numpy())
    note = (
        "Rings are training rows, dots generated ones, in the colour of their largest class; two "
        "main directions (PCA) of the embeddings. What looks near here may be far apart."
    )
    return PlotOf("Where they lie", plots.scatter(points, classes, flags, names), note)


def _pure(made: Made) -> bool:
    """Whether the parents have one class: then it is known which."""
    return max(made.row.label) > 1 - 1e-6


def _curves(file: Path) -> list[PlotOf]:
    if not file.is_file():
        return []
    history = read_json(file)
    lines = {
        name: [(line["step"], float(line[key])) for line in history if key in line]
        for key, name in (("loss", "training"), ("eval_loss", "evaluation"))
    }
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return []
    note = "Loss of training rows, real and generated, and of evaluation rows where there were any."
    return [PlotOf("Learning", plots.curves(lines, "loss"), note)]


def _read_made(file: Path) -> list[Made]:
    if not file.is_file():
        return []
    return [Made(*shown) for shown in read_shown(file)]


def _line(text: str) -> str:
    return " / ".join(text.split("\x1e"))
