"""A labelled set on tiny models, for all tests of the explorer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import make_inverter, make_rows

from mixup_hf.data.tables import LabelledTexts
from mixup_hf.explorer.labelled_set import LabelledSet
from mixup_hf.explorer.session import Session
from mixup_hf.training.augmentation import prepare

NAMES = ("news", "film", "sport")
SETTINGS = {
    "committee": ("encoder", "knn"),
    "pairing": "random",
    "max_new_tokens": 8,
    "on_unreadable": "off",
    "reuse": False,
}


def make_set(given: list[Any] | None = None, **settings: Any) -> LabelledSet:
    """24 rows of three classes, or with other labels."""
    texts, numbers = make_rows(24)
    table = LabelledTexts(texts, given or [NAMES[number] for number in numbers])
    inverter = make_inverter(num_hints=4, lexicon_words=20)
    mixup = prepare(table, "embedded", inverter, {}, SETTINGS | settings)
    data = {"data": "train.jsonl", "columns": ["text", "label", None], "eval_data": None}
    return LabelledSet(mixup, table, data | {"unlabeled_file": None})


@pytest.fixture(scope="session")
def labelled_set() -> LabelledSet:
    return make_set()


@pytest.fixture
def session(labelled_set: LabelledSet, tmp_path: Path) -> Session:
    mixup = labelled_set.mixup
    return Session(mixup.inverter, mixup.config, labelled_set, tmp_path / "kept.jsonl")


@pytest.fixture
def other_set() -> Callable[..., LabelledSet]:
    return make_set
