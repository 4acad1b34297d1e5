"""What is chosen for a training set where the user has left a setting open.

The choice depends on the settings and the training set alone, so every run makes the same one. What
it rests on is in recipes/benchmarks/RESULTS.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mixup_hf.config import MixupConfig
from mixup_hf.data.targets import SINGLE_LABEL, Targets

# Generated rows per training row, and bounds on how many there are: decoding takes time.
_PER_ROW, _FEWEST, _MOST = 4, 400, 2000


@dataclass(frozen=True)
class Chosen:
    """Settings of `MixupConfig` that may be left open, as they are for one training set.

    Attributes:
        labels: Who labels a generated sentence.
        curriculum: When in a run generated rows are used.
        curriculum_fill: What takes the places that the curriculum leaves empty.
        contrastive_weight: Weight of the contrastive term in the loss.
        contrastive_optional: Whether the term is left out, instead of refused, where a model or a
            loss cannot have it: the user has not asked for it.
        refill_every: Epochs between refills.
        rows_per_refill: Sentences per refill; None for as many as it uses.
    """

    labels: str
    curriculum: str
    curriculum_fill: str
    contrastive_weight: float
    contrastive_optional: bool
    refill_every: int
    rows_per_refill: int | None


# Where nobody can read labels off a sentence, or nothing has been measured.
_WITH_PARENTS = Chosen("parents", "constant", "none", 0.0, True, 1, None)
# Generated rows first, real rows last, and a contrastive term on both.
_WITH_COMMITTEE = Chosen("committee", "first:0.5", "real", 2.0, True, 0, None)


def choose(config: MixupConfig, targets: Targets) -> Chosen:
    """Choose what is open (None); what the user has set stays.

    Args:
        config: As the user gave it.
        targets: The labels of the training rows (N).
    """
    with_committee = config.labels in (None, "committee") and _committee_fits(config, targets)
    chosen = _WITH_COMMITTEE if with_committee else _WITH_PARENTS
    if with_committee and config.refill_every is None:
        rows = min(max(_PER_ROW * len(targets.values), _FEWEST), _MOST)
        chosen = replace(chosen, rows_per_refill=rows)
    if config.mix_ratio == 0:
        chosen = replace(chosen, contrastive_weight=0.0)  # the plain Trainer
    if config.contrastive_weight is not None:
        chosen = replace(chosen, contrastive_optional=False)
    names = ("labels", "curriculum", "curriculum_fill", "contrastive_weight", "refill_every")
    given = {name: getattr(config, name) for name in (*names, "rows_per_refill")}
    return replace(chosen, **{name: each for name, each in given.items() if each is not None})


def _committee_fits(config: MixupConfig, targets: Targets) -> bool:
    """Whether a committee can be fitted and tested: most classes have two rows or more."""
    if targets.problem_type != SINGLE_LABEL or config.rows_file is not None:
        return False
    if config.mixing.source == "task":
        return False
    return bool((targets.values.sum(0) >= 2).float().mean() > 0.5)
