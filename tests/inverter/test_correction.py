from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny import make_rows
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import Inverter
from mixup_hf.inverter.correction import decode_closest
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.runtime import counter_rng

DEGREES = (10, 95, 200, 310)
TEXTS, _ = make_rows(10)
HOT: dict[str, Any] = {"temperature": 1.5, "max_new_tokens": 8, "seed": 5}


def encode(texts: Sequence[str]) -> Tensor:
    """A sentence is a number of degrees, and its embedding lies there on the unit circle."""
    angles = torch.deg2rad(torch.tensor([float(text) for text in texts]))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def degrees(targets: Tensor) -> list[float]:
    return torch.rad2deg(torch.atan2(targets[:, 1], targets[:, 0])).tolist()


class Biased:
    """Decodes every target too far round the circle, and records what it was asked for."""

    def __init__(self, embeddings: Tensor, bias: float = 20.0) -> None:
        self.embeddings, self.bias = embeddings, bias
        self.asked: list[tuple[int, list[int]]] = []

    def __call__(self, turn: int, rows: Sequence[int], targets: Tensor | None) -> list[str]:
        self.asked.append((turn, list(rows)))
        aims = self.embeddings[list(rows)] if targets is None else targets
        return [str(round(angle + self.bias) % 360) for angle in degrees(aims)]


class Scattered(Biased):
    """Decodes somewhere near, depending on turn and row alone."""

    def __call__(self, turn: int, rows: Sequence[int], targets: Tensor | None) -> list[str]:
        self.asked.append((turn, list(rows)))
        aims = degrees(self.embeddings[list(rows)])
        errors = [counter_rng(turn, row).uniform(-60, 60) for row in rows]
        return [str(round(aim + error) % 360) for aim, error in zip(aims, errors, strict=True)]


def closest(attempt: Biased, **settings: Any) -> list[str]:
    return decode_closest(attempt, encode, attempt.embeddings, DecodeSettings(**settings))


@pytest.fixture
def embeddings() -> Tensor:
    return encode([str(each) for each in DEGREES])


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_corrections_undo_a_decoder_that_always_errs_the_same_way(
    embeddings: Tensor, scale: float
) -> None:
    def errors(corrections: int) -> list[float]:
        texts = closest(Biased(scale * embeddings), corrections=corrections)
        return [abs(float(text) - each) for text, each in zip(texts, DEGREES, strict=True)]

    assert errors(0) == [20] * 4
    assert all(0 < error < 20 for error in errors(1))
    assert errors(40) == [0] * 4


def test_moved_targets_are_as_long_as_their_embeddings() -> None:
    mixes = torch.tensor([[0.3, 0.4], [0.0, 2.0]])
    lengths = []

    def attempt(turn: int, rows: Sequence[int], targets: Tensor | None) -> list[str]:
        if targets is not None:
            lengths.append(targets.norm(dim=1).tolist())
        return ["0", "50"]

    decode_closest(attempt, encode, mixes, DecodeSettings(corrections=2))
    assert lengths == [pytest.approx([0.5, 2.0])] * 2


def test_a_correction_that_is_no_better_is_not_kept_and_the_next_one_goes_half_as_far() -> None:
    wanted, moves = encode(["0"]), []

    def attempt(turn: int, rows: Sequence[int], targets: Tensor | None) -> list[str]:
        if targets is None:
            return ["10"]
        moves.append(abs(degrees(targets)[0]))
        return [str(20 + turn)]

    assert decode_closest(attempt, encode, wanted, DecodeSettings(corrections=3)) == ["10"]
    assert moves[1] == pytest.approx(moves[0] / 2, rel=0.01)
    assert moves[2] == pytest.approx(moves[0] / 4, rel=0.01)


def test_one_attempt_is_neither_embedded_nor_compared(embeddings: Tensor) -> None:
    attempt = Biased(embeddings)

    def never(texts: Sequence[str]) -> Tensor:
        raise AssertionError("embedded again")

    settings = DecodeSettings(close_enough=0.9)
    assert len(decode_closest(attempt, never, embeddings, settings)) == 4
    assert attempt.asked == [(0, [0, 1, 2, 3])]


def test_rows_that_are_close_enough_stop_and_the_others_do_not_notice() -> None:
    embeddings = encode([str(each) for each in range(0, 360, 9)])
    every, some = Scattered(embeddings), Scattered(embeddings)
    full = closest(every, num_candidates=3, corrections=2)
    early = closest(some, num_candidates=3, corrections=2, close_enough=0.98)
    assert [turn for turn, _ in every.asked] == [turn for turn, _ in some.asked] == [0, 1, 2, 3, 4]
    sizes = [len(rows) for _, rows in some.asked]
    assert sizes[0] == 40 and sizes == sorted(sizes, reverse=True) and 0 < sizes[-1] < 20
    cosines = F.cosine_similarity(encode(early), embeddings)
    going = some.asked[-1][1]
    assert [early[row] for row in going] == [full[row] for row in going]
    stopped = [row for row in range(40) if row not in going]
    assert (cosines[stopped] >= 0.98).all()
    assert (F.cosine_similarity(encode(full), embeddings) >= cosines).all()


def test_decoding_ends_when_every_row_is_close_enough(embeddings: Tensor) -> None:
    attempt = Biased(embeddings, bias=3)
    closest(attempt, num_candidates=4, corrections=4, close_enough=0.99)
    assert len(attempt.asked) == 1


def test_an_inverter_gets_closer_and_rows_that_stop_leave_the_others_alone(
    tiny_inverter: Inverter,
) -> None:
    vectors = tiny_inverter.encode(TEXTS)

    def decode(**settings: Any) -> list[str]:
        return tiny_inverter.invert(vectors, **(HOT | settings))

    def cosines(texts: Sequence[str]) -> Tensor:
        return F.cosine_similarity(tiny_inverter.encode(texts), vectors)

    plain, once, often = decode(), decode(corrections=1), decode(corrections=6)
    assert decode(corrections=0, close_enough=0.5) == plain
    assert (cosines(once) >= cosines(plain) - 1e-6).all()
    assert (cosines(often) > cosines(plain) + 1e-4).sum() > len(TEXTS) / 2
    assert decode(corrections=6, batch_size=3) == often
    threshold = float(cosines(plain).median()) + 1e-4
    stops = (cosines(plain) >= threshold).tolist()
    assert 0 < sum(stops) < len(TEXTS)
    expected = [old if stop else new for stop, old, new in zip(stops, plain, once, strict=True)]
    assert decode(corrections=1, close_enough=threshold) == expected
