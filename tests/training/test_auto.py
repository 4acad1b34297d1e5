"""What is chosen for a training set where settings are left open, and what the log says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mixup_hf.config import MixupConfig
from mixup_hf.data.targets import Targets, read_targets
from mixup_hf.errors import InvalidInput
from mixup_hf.training.auto import Chosen, choose, describe_choice

SINGLE = [0, 1, 2] * 8
PARENTS = Chosen("parents", "constant", "none", 0.0, True, 0, 1, None, False, 0.0, False)
COMMITTEE = Chosen("committee", "first:0.5", "real", 2.0, True, 40, 0, 400, True, 0.75, False)


def targets(labels: list[Any]) -> Targets:
    return read_targets(labels, None, None)


def line(rows: list[Any], chosen: Chosen | None = None, **settings: Any) -> str | None:
    config, given = MixupConfig(**settings), targets(rows)
    chosen = chosen or choose(config, given)
    return describe_choice(config, chosen, given.values, given.problem_type)


def test_one_class_a_row_gets_a_committee() -> None:
    assert choose(MixupConfig(), targets(SINGLE)) == COMMITTEE


@pytest.mark.parametrize(
    "labels",
    [
        [["a"], ["b"], ["a", "b"]] * 8,
        [0.5 * at for at in range(24)],
        ["a", "a", "b", "c", "d"],  # one class of four has two rows
        ["a", "a", "b", "c"],
        ["a", "a", "b", "c", "c", "d"],  # half of the classes
    ],
)
def test_labels_that_no_committee_can_be_tested_on_stay_with_the_parents(labels: list[Any]) -> None:
    assert choose(MixupConfig(), targets(labels)) == PARENTS


def test_a_few_classes_with_one_row_do_not_matter() -> None:
    labels = ["a", "a", "b", "b", "c"]
    assert choose(MixupConfig(), targets(labels)).label_source == "committee"


@pytest.mark.parametrize(
    "settings",
    [
        {"source": "task"},
        {"label_source": "parents"},
        {"intrusion": "relabel"},
        {"intrusion": "blend"},
        {"intrusion": "weight"},
        {"rows_file": "rows.jsonl"},
    ],
)
def test_settings_that_speak_for_the_parents_labels(settings: dict[str, Any]) -> None:
    assert choose(MixupConfig(**settings), targets(SINGLE)) == PARENTS


def test_blended_labels_keep_the_schedule_of_the_parents() -> None:
    chosen = choose(MixupConfig(label_source="blend"), targets(SINGLE))
    assert chosen == replace(PARENTS, label_source="blend")


@pytest.mark.parametrize(
    ("rows", "expected"), [(4, 400), (99, 400), (150, 600), (500, 2000), (5000, 2000)]
)
def test_four_generated_rows_a_training_row_within_bounds(rows: int, expected: int) -> None:
    labels = [row % 2 for row in range(rows)]
    assert choose(MixupConfig(), targets(labels)).rows_per_refill == expected


def test_refills_by_the_user_are_as_large_as_their_use() -> None:
    chosen = choose(MixupConfig(refill_every=2), targets(SINGLE))
    assert (chosen.refill_every, chosen.rows_per_refill) == (2, None)
    assert choose(MixupConfig(rows_per_refill=7), targets(SINGLE)).rows_per_refill == 7


@pytest.mark.parametrize("labels", [SINGLE, [["a"], ["b"], ["a", "b"]] * 8])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label_source", "parents"),
        ("label_source", "committee"),
        ("curriculum", "ramp"),
        ("curriculum", "constant"),
        ("curriculum_fill", "none"),
        ("curriculum_fill", "real"),
        ("contrastive_weight", 0),
        ("contrastive_weight", 0.5),
        ("refill_every", 0),
        ("refill_every", 3),
        ("rows_per_refill", 11),
        ("head_start", True),
        ("contrastive_start", 0),
        ("contrastive_start", 7),
        ("weight_average", 0),
        ("weight_average", 0.5),
    ],
)
def test_what_the_user_has_set_stays(labels: list[Any], name: str, value: Any) -> None:
    assert getattr(choose(MixupConfig(**{name: value}), targets(labels)), name) == value


def test_without_generated_rows_there_is_no_term_unless_it_was_set() -> None:
    assert choose(MixupConfig(mix_ratio=0), targets(SINGLE)).contrastive_weight == 0
    given = choose(MixupConfig(mix_ratio=0, contrastive_weight=1), targets(SINGLE))
    assert (given.contrastive_weight, given.contrastive_optional) == (1, False)


def test_a_file_of_rows_that_a_committee_labelled_is_used_as_rows_made_in_the_run() -> None:
    config = MixupConfig(rows_file="rows.jsonl")
    chosen = choose(config, targets(SINGLE), recorded=50)
    assert chosen == replace(COMMITTEE, rows_per_refill=50)


def test_rare_classes_count_as_much_where_there_are_some() -> None:
    rare = ["a"] * 9 + ["b"] * 3
    assert choose(MixupConfig(), targets(rare)) == replace(COMMITTEE, balance=True)
    assert not choose(MixupConfig(), targets(["a"] * 8 + ["b"] * 3)).balance
    for settings in ({"class_weights": "balanced"}, {"sampling_strategy": "auto"}):
        assert not choose(MixupConfig(**settings), targets(rare)).balance
    assert not choose(MixupConfig(mix_ratio=0), targets(rare)).balance
    assert not choose(MixupConfig(label_source="parents"), targets(rare)).balance
    assert "rare classes count as much as frequent ones" in str(line(rare))
    with pytest.raises(InvalidInput, match="`balance` must be left out unless each row has one"):
        choose(MixupConfig(balance=True), targets([["a"], ["a", "b"]] * 8))


def test_the_line_says_what_was_chosen_and_how_to_change_it() -> None:
    assert line(SINGLE) == (
        "mixup_hf: chosen for 24 rows of 3 classes: a committee's labels, at most 400 generated "
        "rows, used in the first half of the run (real rows in the second), contrastive weight 2, "
        "40 contrastive steps before training, a fitted head to start from, weights averaged over "
        "the last 75% of steps; set `label_source`, `rows_per_refill`, `curriculum`, "
        "`contrastive_weight`, `contrastive_start`, `head_start`, `weight_average` to change this"
    )


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        ([["a"], ["b"], ["a", "b"]] * 8, "24 rows with several labels"),
        ([0.5 * at for at in range(24)], "24 rows with numbers"),
    ],
)
def test_the_line_for_other_tasks(labels: list[Any], rows: str) -> None:
    assert line(labels) == (
        f"mixup_hf: chosen for {rows}: the parents' labels, new generated rows every epoch, used "
        "in the whole run, no contrastive term; set `label_source`, `refill_every`, "
        "`curriculum`, `contrastive_weight` to change this"
    )


def test_the_line_is_about_open_settings_alone() -> None:
    given = {"curriculum": "ramp", "contrastive_weight": 1, "refill_every": 2}
    given |= {"contrastive_start": 0, "head_start": False, "weight_average": 0}
    assert line(SINGLE, **given) == (
        "mixup_hf: chosen for 24 rows of 3 classes: a committee's labels; set `label_source` to "
        "change this"
    )
    assert line(SINGLE, label_source="parents", **given) is None
    file = line(SINGLE, rows_file="rows.jsonl")
    assert file is not None
    assert "label" not in file


@pytest.mark.parametrize("settings", [{"mix_ratio": 0}, {"enabled": False}])
def test_nothing_is_said_where_nothing_is_mixed(settings: dict[str, Any]) -> None:
    assert line(SINGLE, **settings) is None
