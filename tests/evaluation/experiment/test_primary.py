"""The comparison an experiment is made for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from experiment_data import made

from mixup_hf.evaluation.experiment.config import ExperimentConfig, PrimaryConfig
from mixup_hf.evaluation.experiment.primary import contrast, in_words, rows
from mixup_hf.evaluation.experiment.runner import Job, Run
from mixup_hf.evaluation.experiment.summary import markdown, summarise, together

CONFIG = PrimaryConfig(arm="default", against=("oversample", "setfit", "contrastive"))


def runs_of(accuracies: dict[str, list[float]], sets: str = "ab", **more: float) -> dict[Job, Run]:
    found = {}
    for data in sets:
        for arm, by_seed in accuracies.items():
            for seed, accuracy in enumerate(by_seed):
                job = Job(data, 10, seed, arm)
                found[job] = made(job, accuracy, **more)
    return found


def test_the_arm_is_compared_with_the_best_of_its_rivals() -> None:
    runs = runs_of(
        {
            "oversample": [0.5, 0.6, 0.5, 0.6],
            "setfit": [0.7, 0.6, 0.6, 0.7],
            "default": [0.75, 0.7, 0.65, 0.75],
            "eda": [0.9] * 4,
        }
    )
    found = contrast(runs, CONFIG)
    assert found is not None and found.best == "setfit"
    assert found.not_run == ["contrastive"] and found.worse == [] and found.sets == 2
    gap = found.comparisons["setfit"]
    assert gap.pairs == 8 and gap.difference == pytest.approx(0.0625)
    assert gap.permutation_p == pytest.approx(2 / 2**8)
    text = in_words(found)
    assert "`default` against `setfit`, the best of `oversample`, `setfit` on average" in text
    assert "over 8 pairs: accuracy +0.063 [" in text and "p = 0.008" in text
    assert "Significantly worse (Holm) on none of 2 data sets. Not run: `contrastive`." in text
    assert [row["arm"] for row in rows(found)] == ["default", "oversample", "setfit"]


def test_all_means_are_over_the_same_pairs() -> None:
    runs = runs_of({"oversample": [0.5] * 4, "default": [0.6] * 4, "setfit": [0.9]})
    assert contrast(runs, PrimaryConfig(arm="default", against=("setfit",))) is not None
    found = contrast(runs, CONFIG)  # seed 0 on both data sets
    assert found is not None and found.comparisons["oversample"].pairs == 2
    assert contrast(runs_of({"oversample": [0.5], "default": [0.6]}, "a"), CONFIG) is None
    assert contrast(runs_of({"default": [0.6] * 3}), CONFIG) is None


def test_sets_on_which_it_is_worse_are_named() -> None:
    seeds = [0.5, 0.55, 0.5, 0.6, 0.5, 0.5, 0.55, 0.5]
    runs = runs_of({"oversample": seeds, "default": [each + 0.2 for each in seeds]}, "a")
    runs |= runs_of({"oversample": seeds, "default": [each - 0.1 for each in seeds]}, "b")
    found = contrast(runs, CONFIG)
    assert found is not None and found.worse == ["b (10 rows per class)"]
    assert "worse (Holm) on `b (10 rows per class)` of 2" in in_words(found)


def test_another_metric_and_the_loss() -> None:
    runs = runs_of({"oversample": [0.5] * 2}, macro_f1=0.4, loss=1.0)
    runs |= runs_of({"default": [0.5] * 2}, macro_f1=0.6, loss=0.7)
    config = PrimaryConfig(arm="default", against=("oversample",), metric="macro_f1")
    found = contrast(runs, config)
    assert found is not None and found.comparisons["oversample"].difference == pytest.approx(0.2)
    assert found.loss.difference == pytest.approx(-0.3)
    assert "macro-F1 +0.200" in in_words(found)


def test_it_stands_first() -> None:
    runs = runs_of({"oversample": [0.5] * 2, "default": [0.6] * 2})
    text = markdown(
        summarise(runs, "oversample"),
        "oversample",
        together(runs, "oversample"),
        regime="A model.",
        primary=contrast(runs, CONFIG),
    )
    assert text.startswith("A model.\n\n### Primary contrast\n\n`default` against `oversample`")


@pytest.mark.parametrize(
    ("primary", "said"),
    [
        ({"arm": "best"}, "`primary.arm` must be one of"),
        ({"against": ["oversample", "none such"]}, "`primary.against` must be one of"),
        ({"arm": "eda", "against": ["eda"]}, "`against` must name other arms"),
    ],
)
def test_a_primary_contrast_names_arms(
    make: Callable[..., ExperimentConfig], primary: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        make(primary=primary)
