"""The comparison an experiment is made for: an arm against the best of its rivals."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mixup_hf.evaluation.experiment.config import PrimaryConfig
from mixup_hf.evaluation.experiment.runner import Job, Run
from mixup_hf.evaluation.experiment.wording import SURE, gap, p_in_words, p_value
from mixup_hf.evaluation.statistics import Comparison, compare, holm

_NAMES_OF_METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "loss": "negative log-likelihood",
}


@dataclass(frozen=True)
class Primary:
    """How an arm compares with its rivals over all data sets.

    A pair is a seed on a data set, averaged over shots; only pairs for which the arm and all
    rivals have runs are counted, so that all means are over the same ones.

    Attributes:
        arm: The arm.
        metric: What is compared.
        best: The rival with the best mean.
        means: Mean of the metric, of the arm and of each rival.
        comparisons: The arm compared with each rival.
        loss: The arm's negative log-likelihood compared with that of `best`; less is better.
        losses: Mean negative log-likelihood, of the arm and of each rival.
        worse: Data sets, each with its shots, on which the arm is significantly worse than
            `best`, corrected for their number (Holm).
        sets: How many data sets, each with its shots, were tested for that.
        not_run: Rivals without any run.
    """

    arm: str
    metric: str
    best: str
    means: dict[str, float]
    comparisons: dict[str, Comparison]
    loss: Comparison
    losses: dict[str, float]
    worse: list[str]
    sets: int
    not_run: list[str]


_Place = tuple[str, int, int]  # data set, shots, seed


def contrast(runs: Mapping[Job, Run], config: PrimaryConfig) -> Primary | None:
    """Compare an arm with its rivals; None as long as there are fewer than two pairs.

    That the best rival is chosen from the same runs favours the rivals.
    """
    present = {job.arm for job in runs}
    rivals = [name for name in config.against if name in present]
    arms = [config.arm, *rivals]
    found: dict[_Place, dict[str, Run]] = {}
    for job, run in runs.items():
        if job.arm in arms:
            found.setdefault((job.data, job.shots, job.seed), {})[job.arm] = run
    places = [place for place, by_arm in found.items() if len(by_arm) == len(arms)]
    pairs: dict[tuple[str, int], list[_Place]] = {}
    for place in places:
        pairs.setdefault((place[0], place[2]), []).append(place)
    if not rivals or len(pairs) < 2:
        return None

    def values(arm: str, metric: str) -> list[float]:
        return [
            statistics.mean(found[place][arm].metrics[metric] for place in each)
            for each in pairs.values()
        ]

    means = {arm: statistics.mean(values(arm, config.metric)) for arm in arms}
    best = max(rivals, key=means.__getitem__)
    own = values(config.arm, config.metric)
    gaps: dict[str, list[float]] = {}
    for data, shots, seed in places:
        by_arm = found[data, shots, seed]
        difference = by_arm[config.arm].metrics[config.metric] - by_arm[best].metrics[config.metric]
        gaps.setdefault(f"{data} ({shots} rows per class)", []).append(difference)
    tested = holm({name: compare(g, [0.0] * len(g)) for name, g in gaps.items() if len(g) > 1})
    return Primary(
        arm=config.arm,
        metric=config.metric,
        best=best,
        means=means,
        comparisons={rival: compare(own, values(rival, config.metric)) for rival in rivals},
        loss=compare(values(config.arm, "loss"), values(best, "loss")),
        losses={arm: statistics.mean(values(arm, "loss")) for arm in arms},
        worse=[n for n, each in tested.items() if each.difference < 0 and each.holm_p < SURE],
        sets=len(tested),
        not_run=[name for name in config.against if name not in present],
    )


def metric_name(metric: str) -> str:
    """A metric as it is called in a sentence."""
    return _NAMES_OF_METRICS[metric]


def in_words(primary: Primary) -> str:
    """The contrast as a paragraph."""
    found = primary.comparisons[primary.best]
    said = [
        f"`{primary.arm}` against `{primary.best}`, the best of {_listed(primary.comparisons)} on "
        f"average, over {found.pairs} pairs: {_NAMES_OF_METRICS[primary.metric]} {gap(found)}, "
        f"{p_in_words(found.permutation_p)}; negative log-likelihood {gap(primary.loss)}, "
        f"{p_in_words(primary.loss.permutation_p)}.",
        f"Significantly worse (Holm) on {_listed(primary.worse) or 'none'} of {primary.sets} data "
        "sets.",
    ]
    if primary.not_run:
        said.append(f"Not run: {_listed(primary.not_run)}.")
    return " ".join(said)


def rows(primary: Primary) -> list[dict[str, str]]:
    """The rows of a table of the arm and its rivals, by column heading."""
    word = _NAMES_OF_METRICS[primary.metric]
    table = []
    for arm, mean in primary.means.items():
        found = primary.comparisons.get(arm)
        table.append(
            {
                "arm": arm,
                word: f"{mean:.3f}",
                f"{primary.arm} minus it": "" if found is None else gap(found),
                "p": "" if found is None else p_value(found.permutation_p),
                "NLL": f"{primary.losses[arm]:.3f}",
            }
        )
    return table


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
