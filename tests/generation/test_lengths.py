from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tiny import make_producer
from torch import Tensor

from mixup_hf.data.text_pairs import MARK, both_sides
from mixup_hf.generation.cache import SentenceStore
from mixup_hf.generation.lengths import ParentLengths

TEXTS = ["one", "one two three", "a b c d e f g h i j"]


def words(column: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in column]


def test_a_length_is_that_of_a_parent_as_often_as_its_weight() -> None:
    lengths = ParentLengths(TEXTS, words, 40)
    parents = np.array([[0, 2]] * 4000)
    shares = np.array([[0.25, 0.75]] * 4000)
    drawn = lengths.draw(parents, shares, (0, 1))[:, 0]
    assert set(drawn.tolist()) == {1, 10}
    assert abs((drawn == 1).mean() - 0.25) < 0.03
    assert (lengths.draw(parents, shares, (0, 1))[:, 0] == drawn).all()
    assert (lengths.draw(parents, shares, (0, 2))[:, 0] != drawn).any()


def test_weights_beyond_one_leave_one_parent_and_no_length_is_beyond_the_limit() -> None:
    lengths = ParentLengths(TEXTS, words, 5)
    drawn = lengths.draw(np.array([[2, 0]] * 50), np.array([[1.3, -0.3]] * 50), (0,))
    assert set(drawn[:, 0].tolist()) == {5}


def test_each_side_of_a_pair_has_its_length() -> None:
    pairs = [f"{text}{MARK}x" for text in TEXTS]
    drawn = ParentLengths(pairs, words, 40).draw(np.array([[2, 2]]), np.array([[0.5, 0.5]]), (0,))
    assert drawn.tolist() == [[10, 1]]
    seen: list[list[list[int]]] = []

    def invert(mixes: Tensor, seed: Sequence[int], lengths: np.ndarray) -> list[str]:
        seen.append(lengths.tolist())
        return ["y"] * len(mixes)

    assert both_sides(invert)(torch.zeros(1, 8), (0,), drawn) == [f"y{MARK}y"]
    assert seen == [[[10]], [[1]]]


def test_the_wanted_lengths_are_part_of_what_a_cached_sentence_is_found_by(tmp_path) -> None:  # type: ignore[no-untyped-def]
    def made(longest: int) -> tuple[int, int]:
        producer = make_producer()
        producer.store = SentenceStore(tmp_path, {})
        producer.lengths = ParentLengths(producer.texts, words, longest)
        producer.invert = lambda mixes, seed, lengths: [str(each) for each in lengths[:, 0]]
        rows = producer.produce(0, 4)
        assert {row.text for row in rows} <= {str(each) for each in range(1, longest + 1)}
        return producer.decoded, producer.reused

    assert made(40) == (4, 0)
    assert made(40) == (0, 4)
    assert made(1) == (4, 0)
