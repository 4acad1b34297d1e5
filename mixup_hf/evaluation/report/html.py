"""One HTML file about a run or an experiment; styles and plots are in it, so it opens anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixup_hf.data.row_formats import OF_A_RUN
from mixup_hf.evaluation.experiment.primary import Primary
from mixup_hf.evaluation.experiment.primary import in_words as contrast_in_words
from mixup_hf.evaluation.experiment.primary import rows as primary_rows
from mixup_hf.evaluation.experiment.summary import (
    Summary,
    Together,
    cells,
    num_tests,
    together_cells,
)
from mixup_hf.evaluation.experiment.wording import TOGETHER, explained, in_words
from mixup_hf.evaluation.report import drawing, plots
from mixup_hf.evaluation.report.baseline import METRICS, baseline_section, tiles_of
from mixup_hf.evaluation.report.committee import committee_section
from mixup_hf.evaluation.report.course import course_section
from mixup_hf.evaluation.report.made import Made, read_made
from mixup_hf.evaluation.report.measured import measured_elsewhere
from mixup_hf.evaluation.report.pages import PlotOf, Section, TableOf, read_json, render
from mixup_hf.evaluation.statistics import Comparison
from mixup_hf.evaluation.text_scores import copied_share, matched_variety
from mixup_hf.intervals import wilson
from mixup_hf.judging import intrusion_report
from mixup_hf.types import Encodes

_MOST_SAMPLES = 200
_SHOWN_FIRST = 20
_MOST_POINTS = 400
_FACTS = {
    "train_rows": "training rows",
    "test_rows": "test rows",
    "steps": "steps",
    "mixed_rows": "generated sentences",
    "mixed_draws": "times they were used, in all",
    "seed": "seed",
    "seconds": "seconds",
}


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
    made = read_made(folder / OF_A_RUN)
    mixes = [each for each in made if each.parents]  # not the unlabelled texts among them
    sections = [
        baseline_section(metrics, folder),
        course_section(folder),
        committee_section(metrics, [each.voted for each in made]),
        Section("Sentences", _about_sentences(mixes, made, encoder)),
        Section("Figures", _figures(metrics, folder)),
    ]
    lead = [_headline(metrics), *([] if made else ["Nothing was generated in this run."])]
    lead += [] if drawing.available() else [drawing.LEFT_OUT]
    shown = made[:_MOST_SAMPLES]
    return render(f"A run: {folder.name}", lead, sections, shown, _SHOWN_FIRST, tiles_of(metrics))


def _about_sentences(
    mixes: Sequence[Made], made: Sequence[Made], encoder: Encodes | None
) -> list[TableOf | PlotOf]:
    blocks: list[TableOf | PlotOf] = []
    if mixes and drawing.available():
        blocks += _about_rows(mixes)
    if encoder is not None and len(made) > 2 and drawing.available():
        blocks.append(_map(made, encoder))
    return [*blocks, *([_quality(mixes)] if mixes else [])]


def report_of_an_experiment(
    title: str,
    summary: Summary,
    baseline: str,
    all_sets: Together,
    *,
    regime: str = "",
    primary: Primary | None = None,
) -> str:
    """HTML about an experiment.

    Args:
        title: What it is called.
        summary: What `summary.summarise` found.
        baseline: The arm that all others were compared with.
        all_sets: What `summary.together` found.
        regime: What was trained how, in a sentence.
        primary: What `primary.contrast` found; shown first.
    """
    tables: list[TableOf | PlotOf] = []
    drawn: list[TableOf | PlotOf] = []
    if primary is not None:
        rows = primary_rows(primary)
        body = [list(row.values()) for row in rows]
        note = contrast_in_words(primary).replace("`", "")
        tables.append(TableOf("Primary contrast", list(rows[0]), body, note))
    if all_sets:
        rows = together_cells(all_sets)
        body = [list(row.values()) for row in rows]
        tables.append(TableOf("All data sets", list(rows[0]), body, TOGETHER))
        note = "Means over all pairs of runs with 95 % bootstrap intervals."
        gaps = {arm: each for arm, (each, _) in all_sets.items()}
        drawn += _differences("All data sets", gaps, baseline, note)
    tests = num_tests(summary)
    for (data, shots), arms in summary.items():
        name = f"{data}, {shots} rows per class"
        rows = [cells(arm) for arm in arms]
        body = [list(row.values()) for row in rows]
        tables.append(TableOf(name, list(rows[0]), body, in_words(arms, baseline, tests)))
        gaps = {arm.arm: arm.comparison for arm in arms if arm.comparison is not None}
        note = "Means over seeds with 95 % bootstrap intervals."
        drawn += _differences(name, gaps, baseline, note)
    lead = [*([regime] if regime else []), explained(baseline)]
    lead += [] if drawing.available() else [drawing.LEFT_OUT]
    return render(title, lead, [Section("Results", tables), Section("Differences", drawn)], [], 0)


def _differences(
    title: str, gaps: Mapping[str, Comparison], baseline: str, note: str
) -> list[PlotOf]:
    if not gaps or not drawing.available():
        return []
    arms = {arm: (each.difference, each.low, each.high) for arm, each in gaps.items()}
    svg = plots.differences(arms, f"accuracy minus that of {baseline}")
    return [PlotOf(title, svg, note)]


def _headline(metrics: dict[str, Any]) -> str:
    if "test_accuracy" not in metrics:
        return f"{metrics['test_rows']} test rows, one seed."
    rate = wilson(round(metrics["test_accuracy"] * metrics["test_rows"]), metrics["test_rows"])
    return (
        f"Accuracy {rate.share:.1%} on {rate.of} test rows (95 % interval {rate.low:.1%} to "
        f"{rate.high:.1%}), one seed. One run cannot show whether mixing helped: "
        "mixup-hf evaluate compares arms over seeds."
    )


def _figures(metrics: dict[str, Any], folder: Path) -> list[TableOf]:
    """Tables of figures; scores only if they are not beside those of a baseline."""
    scores = [] if "comparison" in metrics else [_scores(metrics)]
    return [*scores, _facts(metrics), *measured_elsewhere(folder)]


def _scores(metrics: dict[str, Any]) -> TableOf:
    rows = [(name, f"{metrics[key]:.3f}") for key, name in METRICS.items() if key in metrics]
    return TableOf("Test scores", ("on test rows", "value"), rows)


def _facts(metrics: dict[str, Any]) -> TableOf:
    rows = [(name, str(metrics[key])) for key, name in _FACTS.items() if key in metrics]
    return TableOf("Run", (), rows)


def _quality(made: Sequence[Made]) -> TableOf:
    parents = sorted({parent for each in made for parent in each.parents})
    ours, real = matched_variety([each.text for each in made], parents)
    copied = float(np.mean([copied_share(each.text, each.parents) for each in made]))
    rows = [
        ("texts", str(ours.texts), str(real.texts)),
        ("words, on average", f"{ours.mean_words:.1f}", f"{real.mean_words:.1f}"),
        ("unique share", f"{ours.unique:.1%}", f"{real.unique:.1%}"),
        ("distinct words", f"{ours.distinct_1:.3f}", f"{real.distinct_1:.3f}"),
        ("distinct bigrams", f"{ours.distinct_2:.3f}", f"{real.distinct_2:.3f}"),
        ("longest run copied from a parent", f"{copied:.1%}", ""),
    ]
    note = f"Distinct words and bigrams are counted on {ours.words} words of each."
    return TableOf("Variety", ("", "generated", "their parents"), rows, note)


def _about_rows(made: Sequence[Made]) -> list[PlotOf]:
    rows = [each.row for each in made]
    found = intrusion_report(rows)
    lams = [max(row.shares) for row in rows]
    drawn = [
        PlotOf(
            "Ratios", plots.histogram(lams, "larger share"), "The larger share of the two parents."
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
    names = made[0].names
    some = made[: _MOST_POINTS // 2]
    real: dict[str, str] = {}
    for each in made:
        for parent, known in zip(each.parents, _classes(each), strict=True):
            if real.get(parent, plots.UNKNOWN) == plots.UNKNOWN:
                real[parent] = known
    texts = [*real][: _MOST_POINTS // 2] + [each.row.text for each in some]
    classes = [*real.values()][: _MOST_POINTS // 2] + [names[each.row.hard_label] for each in some]
    flags = [False] * (len(texts) - len(some)) + [True] * len(some)
    points = _principal(encoder.encode(texts).numpy())
    note = (
        "Rings are training rows in the colour of their class, dots generated rows in that of "
        "their largest class. Two main directions (PCA) of the embeddings: what looks near here "
        "may be far apart."
    )
    if plots.UNKNOWN in classes:
        note += " Grey: this file does not tell the class."
    svg = plots.scatter(points, classes, flags, names)
    return PlotOf("Map of the embeddings", svg, note, tall=True)


def _principal(rows: np.ndarray) -> np.ndarray:
    """Rows (N, D) along their first two principal components (N, 2)."""
    centered = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    largest = np.take_along_axis(axes[:2], np.abs(axes[:2]).argmax(1)[:, None], 1)
    points: np.ndarray = centered @ (axes[:2] * np.sign(largest)).T  # a sign means nothing: fix it
    return points


def _classes(made: Made) -> Sequence[str]:
    """The parents' classes: as written, or that of a label that only one class made."""
    if made.classes:
        return made.classes
    pure = not made.row.votes and max(made.row.label) > 1 - 1e-6
    return [made.names[made.row.hard_label] if pure else plots.UNKNOWN] * len(made.parents)
