"""What is chosen for a training set where the user has left a setting open.

The choice depends on the settings and the training set alone, so every run makes the same one. What
it rests on is in recipes/benchmarks/RESULTS.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from mixup_hf import errors
from mixup_hf.config import MixupConfig
from mixup_hf.data.targets import MULTI_LABEL, SINGLE_LABEL, Targets
from mixup_hf.mixing.balance import imbalance

# Generated rows per training row, and bounds on how many there are: decoding takes time.
_PER_ROW, _FEWEST, _MOST = 4, 400, 2000
# Largest class to smallest, in rows, from where on classes are balanced.
_IMBALANCED = 3.0
# Policies that mend the parents' label by what the judges find.
_MEND_LABELS = ("relabel", "blend", "weight")
_EVERY_EPOCH = "new generated rows every epoch"
# How labels are called in the log.
_LABELLED = {
    "committee": "a committee's labels",
    "parents": "the parents' labels",
    "blend": "the labels of parents and committee",
}
_NAMES = (
    "label_source",
    "curriculum",
    "curriculum_fill",
    "contrastive_weight",
    "contrastive_start",
    "head_start",
    "weight_average",
    "balance",
    "refill_every",
    "rows_per_refill",
)


@dataclass(frozen=True)
class Chosen:
    """Settings of `MixupConfig` that may be left open, as they are for one training set.

    Attributes:
        label_source: Who labels a generated sentence.
        curriculum: When in a run generated rows are used.
        curriculum_fill: What takes the places that the curriculum leaves empty.
        contrastive_weight: Weight of the contrastive term in the loss.
        contrastive_optional: Whether the term is left out, instead of refused, where a model or a
            loss cannot have it: the user has not asked for it.
        contrastive_start: Steps of contrastive tuning before the first step.
        refill_every: Epochs between refills.
        rows_per_refill: Sentences per refill; None for as many as it uses.
        head_start: Whether the head is fitted to the training rows before the first step.
        weight_average: Share of the steps, the last ones, whose weights are averaged.
        balance: Whether rare classes count as much as frequent ones.
    """

    label_source: str
    curriculum: str
    curriculum_fill: str
    contrastive_weight: float
    contrastive_optional: bool
    contrastive_start: int
    refill_every: int
    rows_per_refill: int | None
    head_start: bool
    weight_average: float
    balance: bool


# Where nobody can read labels off a sentence, or nothing has been measured.
_WITH_PARENTS = Chosen("parents", "constant", "none", 0.0, True, 0, 1, None, False, 0.0, False)
# Generated rows first, real rows last, and a contrastive term on both.
_WITH_COMMITTEE = Chosen(
    "committee", "first:0.5", "real", 2.0, True, 40, 0, None, True, 0.75, False
)


def choose(config: MixupConfig, targets: Targets, *, recorded: int = 0) -> Chosen:
    """Choose what is open (None); what the user has set stays.

    Args:
        config: As the user gave it.
        targets: The labels of the training rows (N).
        recorded: With `rows_file`: how many rows the file has, if a committee has labelled them;
            else 0.

    Raises:
        InvalidInput: `balance` is asked for where rows have several labels or numbers.
    """
    if config.balance and targets.problem_type != SINGLE_LABEL:
        raise errors.bad("balance", "be left out unless each row has one class", True)
    if config.rows_file is None:
        with_committee = config.label_source in (None, "committee") and _committee_fits(
            config, targets
        )
    else:
        with_committee = recorded > 0 and targets.problem_type == SINGLE_LABEL
    chosen = _WITH_COMMITTEE if with_committee else _WITH_PARENTS
    if with_committee and config.refill_every is None:
        rows = recorded or min(max(_PER_ROW * len(targets.values), _FEWEST), _MOST)
        chosen = replace(chosen, rows_per_refill=rows)
    chosen = replace(chosen, balance=with_committee and _is_imbalanced(config, targets))
    if config.mix_ratio == 0:
        chosen = _without_extras(chosen)
    if config.contrastive_weight is not None:
        chosen = replace(chosen, contrastive_optional=False)
    given = {name: getattr(config, name) for name in _NAMES}
    return replace(chosen, **{name: each for name, each in given.items() if each is not None})


def _without_extras(chosen: Chosen) -> Chosen:
    """The plain Trainer: nothing before the first step, in the loss, or after the last."""
    return replace(
        chosen,
        contrastive_weight=0.0,
        contrastive_start=0,
        head_start=False,
        weight_average=0.0,
        balance=False,
    )


def _is_imbalanced(config: MixupConfig, targets: Targets) -> bool:
    given = config.sampling_strategy is not None or config.class_weights is not None
    if given or targets.problem_type != SINGLE_LABEL:
        return False
    return imbalance(np.bincount(targets.values.argmax(1).numpy())) >= _IMBALANCED


def describe_choice(
    config: MixupConfig, chosen: Chosen, values: Tensor, problem_type: str
) -> str | None:
    """One line for the log: what was chosen, and which settings change it.

    Args:
        config: As the user gave it.
        chosen: By `choose`, as far as the Trainer at hand allows it.
        values: The targets of the training rows (N, C).
        problem_type: As in transformers' configs.

    Returns:
        The line; None where nothing is mixed, or nothing was left open.
    """
    if not config.enabled or config.mix_ratio == 0:
        return None
    parts = {"label_source": "" if config.rows_file else _LABELLED[chosen.label_source]}
    if config.refill_every is None:
        rows = chosen.rows_per_refill
        name = "refill_every" if rows is None else "rows_per_refill"
        parts[name] = _EVERY_EPOCH if rows is None else f"at most {rows:,} generated rows"
    parts["curriculum"] = _when(chosen)
    parts["contrastive_weight"] = _contrastive(chosen.contrastive_weight)
    steps = chosen.contrastive_start
    parts["contrastive_start"] = f"{steps} contrastive steps before training" if steps else ""
    parts["head_start"] = "a fitted head to start from" if chosen.head_start else ""
    last = chosen.weight_average
    parts["weight_average"] = f"weights averaged over the last {last:.0%} of steps" if last else ""
    parts["balance"] = "rare classes count as much as frequent ones" if chosen.balance else ""
    shown = {name: part for name, part in parts.items() if part and getattr(config, name) is None}
    if not shown:
        return None
    found, names = ", ".join(shown.values()), ", ".join(f"`{name}`" for name in shown)
    given = _training_set(values, problem_type)
    return f"mixup_hf: chosen for {given}: {found}; set {names} to change this"


def _training_set(values: Tensor, problem_type: str) -> str:
    rows = f"{len(values):,} rows"
    if problem_type == SINGLE_LABEL:
        return f"{rows} of {values.shape[1]} classes"
    return f"{rows} with {'several labels' if problem_type == MULTI_LABEL else 'numbers'}"


def _when(chosen: Chosen) -> str:
    if chosen.curriculum == "constant":
        return "used in the whole run"
    if chosen.curriculum == "first:0.5":
        real = " (real rows in the second)" if chosen.curriculum_fill == "real" else ""
        return f"used in the first half of the run{real}"
    return f"curriculum {chosen.curriculum}"


def _contrastive(weight: float) -> str:
    return f"contrastive weight {weight:g}" if weight else "no contrastive term"


def _committee_fits(config: MixupConfig, targets: Targets) -> bool:
    """Whether a committee can be fitted and tested: most classes have two rows or more."""
    if targets.problem_type != SINGLE_LABEL or config.mixing.source == "task":
        return False
    if config.label_source is None and config.intrusion in _MEND_LABELS:
        return False
    return bool((targets.values.sum(0) >= 2).float().mean() > 0.5)
