from __future__ import annotations

import pytest

from mixup_hf import errors
from mixup_hf.data.label_names import describe_labels, readable


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BookFlight", "book flight"),
        ("book_flight", "book flight"),
        ("talk.politics.mideast", "talk politics mideast"),
        ("sci/tech", "sci tech"),
        ("card-arrival", "card arrival"),
        ("HUM", "HUM"),
        ("HTTPError", "HTTP error"),
        ("very  good", "very good"),
        ("???", "???"),
        ("__", "__"),
    ],
)
def test_names_become_words(name: str, words: str) -> None:
    assert readable(name) == words


def test_given_descriptions_come_before_readable_names() -> None:
    names = ["HUM", "LOC_city"]
    assert describe_labels(names) == ["HUM", "LOC city"]
    assert describe_labels(names, {"HUM": "asks for a person"}) == ["asks for a person", "LOC city"]


def test_descriptions_of_no_class_and_empty_ones_are_refused() -> None:
    with pytest.raises(errors.InvalidInput, match="`label_descriptions` must be one of 'a', 'b'"):
        describe_labels(["a", "b"], {"c": "x"})
    with pytest.raises(errors.InvalidInput, match="be a text"):
        describe_labels(["a", "b"], {"a": " "})
