"""What tables of an experiment say in words, and how they write figures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mixup_hf.evaluation.statistics import Comparison

if TYPE_CHECKING:
    from mixup_hf.evaluation.experiment.summary import ArmSummary

SURE = 0.05  # p from which a difference counts as shown
TOGETHER = (
    "Differences of accuracy, and of negative log-likelihood (NLL), of which less is better. A "
    "pair is a seed on a data set, averaged over shots; p is corrected for the number of arms. It "
    "tells of these data sets together, not of others."
)


def gap(found: Comparison) -> str:
    """A difference with its interval."""
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def p_value(value: float) -> str:
    """A p with three digits."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_in_words(value: float) -> str:
    """The same, as it stands in a sentence."""
    return f"p {p_value(value)}" if value < 0.001 else f"p = {p_value(value)}"


def explained(baseline: str) -> str:
    """Explain the columns of the tables."""
    return (
        f"Differences of accuracy are to `{baseline}`, paired by seed, with 95 % bootstrap "
        "intervals; p is that of a permutation test, then corrected for all arms and tables "
        "(Holm), and that of Wilcoxon's signed-rank test. What a point costs: a run's seconds and "
        "sentences by the points gained, be that by chance or not. Train accuracy: of the real "
        "training rows, after training; a model that has converged has learned them."
    )


def in_words(arms: Iterable[ArmSummary], baseline: str, tests: int) -> str:
    """State in words what the comparisons show, and what they do not.

    Args:
        arms: Those of one table.
        baseline: What they are compared with.
        tests: How many comparisons p is corrected for.
    """
    compared = [arm for arm in arms if arm.comparison is not None]
    if not compared:
        return (
            f"No arm has two seeds in common with `{baseline}`: one difference cannot be told "
            "from chance, so nothing was tested."
        )
    named = {
        verdict: [arm.arm for arm in compared if _verdict(arm.comparison) == verdict]
        for verdict in ("helps", "hurts")
    }
    said = [
        f"{verdict.capitalize()} (p below 0.05, corrected): {', '.join(names)}."
        for verdict, names in named.items()
        if names
    ]
    if not said:
        said = [f"No arm is shown to differ from `{baseline}`."]
    fewest = min(arm.comparison.pairs for arm in compared if arm.comparison is not None)
    least = tests * 2.0 ** (1 - fewest)
    if least > SURE:
        seeds = 1 + math.ceil(math.log2(tests / SURE))
        corrected = f", corrected for {tests} comparisons" if tests > 1 else ""
        said.append(
            f"With {fewest} seeds no p can fall below {min(1.0, least):.3f}{corrected}: run at "
            f"least {seeds}."
        )
    return " ".join(said)


def _verdict(comparison: Comparison | None) -> str:
    if comparison is None or comparison.holm_p >= SURE:
        return "open"
    return "helps" if comparison.difference > 0 else "hurts"
