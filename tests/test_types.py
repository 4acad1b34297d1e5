from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import FakeEncoder, make_inverter

from mixup_hf import MixedExample
from mixup_hf.types import Encodes, Inverts

ROW = MixedExample(
    text="the bank — a “new” price\u2028up",
    label=(0.25, 0.0, 0.75),
    lam=0.75,
    parents=(3, 17),
    shares=(0.75, 0.25),
    seed=1,
    epoch=2,
    index=5,
    aligner_fingerprint="f00d",
)


@given(
    st.builds(
        MixedExample,
        text=st.text(),
        label=st.lists(st.floats(0, 1), min_size=2, max_size=5).map(tuple),
        lam=st.floats(0, 1),
        parents=st.tuples(st.integers(0), st.integers(0)),
        shares=st.tuples(st.floats(-1, 2), st.floats(-1, 2)),
    )
)
def test_json_holds_everything_exactly(row: MixedExample) -> None:
    assert MixedExample.from_json(json.loads(json.dumps(row.to_json()))) == row


@pytest.mark.parametrize("missing", ["text", "label", "parents", "aligner_fingerprint"])
def test_a_row_without_all_its_fields_is_none(missing: str) -> None:
    fields = {name: value for name, value in ROW.to_json().items() if name != missing}
    with pytest.raises((KeyError, TypeError)):
        MixedExample.from_json(fields)


def test_a_row_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        ROW.text = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("label", "hard"), [((0.25, 0.0, 0.75), 2), ((0.6, 0.4), 0), ((0.0, 1.0), 1)]
)
def test_the_hard_label_is_the_class_with_the_largest_share(
    label: tuple[float, ...], hard: int
) -> None:
    assert replace(ROW, label=label).hard_label == hard


def test_the_hard_label_of_two_halves_is_always_the_same_one_of_the_two() -> None:
    row = replace(ROW, label=(0.0, 0.5, 0.5), lam=0.5)
    assert row.hard_label in (1, 2)
    assert MixedExample.from_json(row.to_json()).hard_label == row.hard_label


def test_the_inverter_keeps_the_protocols_that_the_pool_is_filled_through() -> None:
    inverter = make_inverter()
    assert isinstance(inverter, Encodes)
    assert isinstance(inverter, Inverts)
    assert isinstance(FakeEncoder(), Encodes)
    assert not isinstance(object(), Encodes)
