"""Summarizes the runs of an experiment as tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mixup_hf.evaluation.experiment.primary import Primary
from mixup_hf.evaluation.experiment.primary import in_words as contrast_in_words
from mixup_hf.evaluation.experiment.primary import rows as primary_rows
from mixup_hf.evaluation.experiment.runner import Job, Run
from mixup_hf.evaluation.experiment.wording import (
    SURE,
    TOGETHER,
    explained,
    gap,
    in_words,
    p_value,
)
from mixup_hf.evaluation.statistics import Comparison, compare, holm, mcnemar_p

METRICS = ("accuracy", "macro_f1", "minority_recall", "ece", "loss", "brier")


@dataclass(frozen=True)
class ArmSummary:
    """Results of one arm on one data set with a given number of shots.

    Attributes:
        arm: Name of the arm.
        seeds: Number of runs, one per seed.
        means: Mean of each metric.
        deviations: Standard deviation of each metric over seeds; 0 for a single seed.
        comparison: Accuracy compared with the baseline; None for the baseline itself, and if there
            are fewer than two pairs.
        mcnemar: Number of runs in which McNemar's test finds a difference from the baseline at the
            5 % level.
        seconds: Mean duration of a run.
        sentences: Mean number of sentences that a run generated and used.
        learned: Mean accuracy on the real training rows after training; None if not measured.
    """

    arm: str
    seeds: int
    means: dict[str, float]
    deviations: dict[str, float]
    comparison: Comparison | None
    mcnemar: int
    seconds: float
    sentences: float
    learned: float | None = None

    @property
    def cost_of_a_point(self) -> tuple[float, float] | None:
        """Seconds and sentences per point of accuracy gained; None if accuracy did not improve."""
        gained = 0.0 if self.comparison is None else 100 * self.comparison.difference
        return (self.seconds / gained, self.sentences / gained) if gained > 0 else None


Summary = dict[tuple[str, int], list[ArmSummary]]
# By arm: comparisons of accuracy and of negative log-likelihood (lower is better).
Together = dict[str, tuple[Comparison, Comparison]]


def summarise(runs: Mapping[Job, Run], baseline: str) -> Summary:
    """Group by (data set, shots), and compare every arm with the baseline over shared seeds."""
    groups: dict[tuple[str, int], dict[str, dict[int, Run]]] = {}
    for job, run in runs.items():
        arms = groups.setdefault((job.data, job.shots), {})
        arms.setdefault(job.arm, {})[job.seed] = run
    corrected = _corrected(groups, baseline)
    return {
        key: [
            _arm(arm, by_seed, arms.get(baseline, {}), corrected.get((arm, *key)), baseline)
            for arm, by_seed in arms.items()
        ]
        for key, arms in sorted(groups.items())
    }


def together(runs: Mapping[Job, Run], baseline: str) -> Together:
    """Compare each arm with the baseline over all data sets, corrected for the number of arms.

    Runs with the same seed and data set share rows, so they are averaged over shots and count as
    one pair. The result applies to these data sets only, and does not generalize to others. Only
    arms with pairs on all data sets are included.
    """
    sets = {job.data for job in runs}
    if len(sets) < 2:
        return {}
    by_metric: dict[str, dict[str, Comparison]] = {}
    for arm in dict.fromkeys(job.arm for job in runs if job.arm != baseline):
        pairs: dict[tuple[str, int], list[tuple[Run, Run]]] = {}
        for job, run in runs.items():
            base = runs.get(replace(job, arm=baseline))
            if job.arm == arm and base is not None:
                pairs.setdefault((job.data, job.seed), []).append((run, base))
        if {data for data, _ in pairs} == sets:
            for metric in ("accuracy", "loss"):
                gaps = [
                    statistics.mean(one.metrics[metric] - other.metrics[metric] for one, other in p)
                    for p in pairs.values()
                ]
                by_metric.setdefault(metric, {})[arm] = compare(gaps, [0.0] * len(gaps))
    corrected = {metric: holm(found) for metric, found in by_metric.items()}
    return {
        arm: (corrected["accuracy"][arm], corrected["loss"][arm])
        for arm in corrected.get("accuracy", {})
    }


def _corrected(
    groups: Mapping[tuple[str, int], Mapping[str, Mapping[int, Run]]], baseline: str
) -> dict[tuple[str, str, int], Comparison]:
    """Comparisons by (arm, data set, shots), corrected for the number of all of them."""
    found: dict[str, Comparison] = {}
    places = {}
    for (data, shots), arms in groups.items():
        base = arms.get(baseline, {})
        for arm, by_seed in arms.items():
            both = sorted(set(by_seed) & set(base))
            if arm == baseline or len(both) < 2:
                continue
            name = f"{arm}\0{data}\0{shots}"
            places[name] = (arm, data, shots)
            found[name] = compare(
                [by_seed[seed].metrics["accuracy"] for seed in both],
                [base[seed].metrics["accuracy"] for seed in both],
            )
    return {places[name]: comparison for name, comparison in holm(found).items()}


def _arm(
    arm: str,
    by_seed: Mapping[int, Run],
    base: Mapping[int, Run],
    comparison: Comparison | None,
    baseline: str,
) -> ArmSummary:
    values = {name: [run.metrics[name] for run in by_seed.values()] for name in METRICS}
    both = [] if arm == baseline else sorted(set(by_seed) & set(base))
    return ArmSummary(
        arm=arm,
        seeds=len(by_seed),
        means={name: statistics.mean(each) for name, each in values.items()},
        deviations={name: _deviation(each) for name, each in values.items()},
        comparison=comparison,
        mcnemar=sum(mcnemar_p(by_seed[at].correct, base[at].correct) < SURE for at in both),
        seconds=statistics.mean(run.metrics["seconds"] for run in by_seed.values()),
        sentences=statistics.mean(run.metrics["mixed_rows"] for run in by_seed.values()),
        learned=_learned(by_seed.values()),
    )


def _learned(runs: Iterable[Run]) -> float | None:
    measured = [run.metrics.get("train_accuracy") for run in runs]
    found = [each for each in measured if each is not None]
    return statistics.mean(found) if found else None


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def markdown(
    summary: Summary,
    baseline: str,
    all_sets: Together,
    *,
    regime: str = "",
    primary: Primary | None = None,
) -> str:
    """Return all tables as Markdown, with conclusions in words.

    Args:
        summary: Result of `summarise`.
        baseline: The arm that all others are compared with.
        all_sets: Result of `together`.
        regime: What was trained how, in a sentence.
        primary: Result of `contrast`, shown first.
    """
    parts = [regime] if regime else []
    if primary is not None:
        shown = lines(primary_rows(primary))
        parts.append(f"### Primary contrast\n\n{contrast_in_words(primary)}\n\n{shown}")
    parts.append(explained(baseline))
    if all_sets:
        rows = together_cells(all_sets)
        parts.append(f"### All data sets\n\n{TOGETHER}\n\n{lines(rows)}")
    tests = num_tests(summary)
    for (data, shots), arms in summary.items():
        parts.append(f"### {data}, {shots} rows per class\n\n{_table(arms)}")
        parts.append(in_words(arms, baseline, tests))
    return "\n\n".join(parts) + "\n"


def unequal_steps(runs: Mapping[Job, Run]) -> str:
    """A sentence about arms that took more optimizer steps than others; empty if none did."""
    taken: dict[str, list[float]] = {}
    for job, run in runs.items():
        each = run.metrics.get("steps", 0) + run.metrics.get("contrastive_steps", 0)
        if each:  # some arms train nothing
            taken.setdefault(job.arm, []).append(each)
    means = {arm: round(statistics.mean(each)) for arm, each in taken.items()}
    if len({*means.values()}) < 2:
        return ""
    counts = ", ".join(f"{arm} {count}" for arm, count in means.items())
    return (
        f" The arms differ in optimizer steps, those before training counted: {counts}. "
        "`training_of` sets `max_steps` of single arms."
    )


def num_tests(summary: Summary) -> int:
    """How many comparisons p is corrected for."""
    return sum(arm.comparison is not None for arms in summary.values() for arm in arms)


def _cost(paid: tuple[float, float] | None) -> str:
    if paid is None:
        return ""
    seconds, sentences = (f"{each:,.0f}" if each >= 10 else f"{each:.1f}" for each in paid)
    return f"{seconds} s, {sentences} sentences"


def cells(arm: ArmSummary) -> dict[str, str]:
    """Return one row of a table, by column heading."""
    means, deviations = arm.means, arm.deviations
    found = arm.comparison
    shown, plain, corrected, wilcoxon = "", "", "", ""
    if found is not None:
        shown, plain, corrected = gap(found), p_value(found.permutation_p), p_value(found.holm_p)
        wilcoxon = p_value(found.wilcoxon_p)
    return {
        "arm": arm.arm,
        "seeds": str(arm.seeds),
        "accuracy": f"{means['accuracy']:.3f} ± {deviations['accuracy']:.3f}",
        "difference": shown,
        "p": plain,
        "p, corrected": corrected,
        "p (Wilcoxon)": wilcoxon,
        "macro-F1": f"{means['macro_f1']:.3f}",
        "rarest class": f"{means['minority_recall']:.3f}",
        "ECE": f"{means['ece']:.3f}",
        "NLL": f"{means['loss']:.3f}",
        "Brier": f"{means['brier']:.3f}",
        "train accuracy": "" if arm.learned is None else f"{arm.learned:.3f}",
        "seconds": f"{arm.seconds:.0f}",
        "a point costs": _cost(arm.cost_of_a_point),
        "runs told apart (McNemar)": "" if found is None else f"{arm.mcnemar} of {found.pairs}",
    }


def together_cells(all_sets: Together) -> list[dict[str, str]]:
    """Return the rows of the table over all data sets, by column heading."""
    return [
        {
            "arm": arm,
            "pairs": str(accuracy.pairs),
            "accuracy": gap(accuracy),
            "p": p_value(accuracy.permutation_p),
            "p, all arms": p_value(accuracy.holm_p),
            "NLL": gap(loss),
            "p of NLL": p_value(loss.permutation_p),
            "p of NLL, all arms": p_value(loss.holm_p),
        }
        for arm, (accuracy, loss) in all_sets.items()
    ]


def _table(arms: Iterable[ArmSummary]) -> str:
    return lines([cells(arm) for arm in arms])


def lines(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table of rows by column heading."""
    table = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in table)
