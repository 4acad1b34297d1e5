from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mixup_hf import errors


def test_an_error_names_the_argument_the_rule_the_value_and_the_way_out() -> None:
    error = errors.bad("alpha", "be greater than 0", -1, "Try 0.4.")
    assert isinstance(error, ValueError)
    assert str(error) == "`alpha` must be greater than 0, but got -1. Try 0.4."


def test_an_error_without_a_way_out_ends_at_the_value() -> None:
    assert str(errors.bad("k", "be 1", 2)) == "`k` must be 1, but got 2."


def test_a_huge_value_is_cut_in_the_message() -> None:
    message = str(errors.bad("texts", "be short", "x" * 5000))
    assert len(message) < 300
    assert message.endswith("....")


def test_one_of_lists_what_is_allowed() -> None:
    errors.one_of("pooling", "mean", ("mean", None))
    errors.one_of("pooling", None, ("mean", None))
    with pytest.raises(ValueError, match=r"`pooling` must be one of 'mean', None, but got 'max'"):
        errors.one_of("pooling", "max", ("mean", None))


@pytest.mark.parametrize(
    ("check", "good", "poor"),
    [
        (lambda value: errors.positive("x", value), [1e-9, 1, 7.5], [0, 0.0, -1]),
        (lambda value: errors.at_least("x", value, 1), [1, 1.0, 2], [0, 0.999, -1]),
        (lambda value: errors.in_range("x", value, 0, 1), [0, 0.5, 1], [-1e-9, 1.0001]),
    ],
    ids=["positive", "at_least", "in_range"],
)
def test_number_checks_hold_at_their_bounds(
    check: Callable[[Any], None], good: list[Any], poor: list[Any]
) -> None:
    for value in good:
        check(value)
    for value in [*poor, float("nan"), "1", None, True, [1]]:
        with pytest.raises(ValueError, match="`x` must"):
            check(value)


@pytest.mark.parametrize("value", [np.int64(3), np.float32(0.5), np.float64(0.5)])
def test_numpy_numbers_are_numbers(value: Any) -> None:
    errors.positive("x", value)
    errors.at_least("x", value, 0)
    errors.in_range("x", value, 0, 3)


def test_numpy_booleans_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="`x` must"):
        errors.at_least("x", np.bool_(True), 0)


def test_texts_accepts_any_sequence_of_strings() -> None:
    errors.texts("texts", ["a"])
    errors.texts("texts", ("a", "b c"))
    errors.texts("texts", [], allow_empty_list=True)


def test_one_string_is_not_taken_for_a_list_of_letters() -> None:
    with pytest.raises(TypeError, match="list of strings, but got one string"):
        errors.texts("texts", "hello")


def test_no_texts_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one text"):
        errors.texts("texts", [])


@pytest.mark.parametrize("value", [None, 3, b"bytes"])
def test_a_text_that_is_no_string_is_named_by_its_row(value: Any) -> None:
    with pytest.raises(TypeError, match=rf"`texts\[1\]` must be a string.*{type(value).__name__}"):
        errors.texts("texts", ["fine", value])


def test_blank_texts_are_counted_and_the_first_rows_named() -> None:
    with pytest.raises(ValueError, match=r"2 of 4 are \(rows 1, 3\)"):
        errors.texts("texts", ["fine", "", "fine", " \t\n"])
    with pytest.raises(ValueError, match=r"9 of 10 are \(rows 1, 2, 3, 4, 5, \.\.\.\)"):
        errors.texts("texts", ["fine", *[""] * 9])
