"""Two texts decoded in every ratio at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import make_inverter

from mixup_hf import Inverter, MixupConfig
from mixup_hf.errors import InvalidInput
from mixup_hf.explorer.session import Session
from mixup_hf.explorer.sweep import sweep
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.inverter.lexicon import hint_words

FIRST, SECOND = "the bank profit", "the film star"


def test_every_ratio_has_its_candidates_and_keeps_the_closest(tiny_inverter: Inverter) -> None:
    calls = []
    invert = tiny_inverter.invert

    def counted(*args: object, **kwargs: object) -> list[str]:
        calls.append(args)
        return invert(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_inverter, "invert", counted)
        found = sweep(tiny_inverter, FIRST, SECOND, DecodeSettings(6, num_candidates=3))
    assert len(calls) == 1  # one batch
    assert [stop.lam for stop in found.stops] == pytest.approx([at / 10 for at in range(11)])
    for stop in found.stops:
        assert len(stop.candidates) == 3
        assert stop.best.closeness == max(each.closeness for each in stop.candidates)
        assert all(0 <= each.found <= 1 for each in stop.candidates)
    assert found.texts == [stop.best.text for stop in found.stops]


def test_a_sweep_decodes_what_interpolate_does(tiny_inverter: Inverter) -> None:
    greedy = DecodeSettings(6, temperature=0.0)
    found = sweep(tiny_inverter, FIRST, SECOND, greedy, num_stops=3)
    assert found.texts == tiny_inverter.interpolate(FIRST, SECOND, [0, 0.5, 1], max_new_tokens=6)


def test_a_sweep_takes_lengths_and_hints_of_the_two_texts(
    tiny_inverter: Inverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def invert(mixes: torch.Tensor, **how: Any) -> list[str]:
        asked.append(how)
        return ["the film"] * len(mixes)

    monkeypatch.setattr(tiny_inverter, "invert", invert)
    settings = DecodeSettings(12, num_candidates=2)
    sweep(tiny_inverter, FIRST, SECOND, settings, num_stops=3)
    assert not {"lengths", "parents"} & set(asked.pop())
    sweep(tiny_inverter, "a", SECOND, settings, hints="parents", match_length=True, num_stops=3)
    (how,) = asked
    assert how["lengths"] == [3, 2, 1] * 2  # as many tokens as words
    assert how["parents"] == [(("a", lam), (SECOND, 1 - lam)) for lam in (0.0, 0.5, 1.0)] * 2


@pytest.mark.parametrize(("length", "matched"), [("match", True), ("free", False)])
def test_the_page_decodes_as_training_does(
    tiny_inverter: Inverter, monkeypatch: pytest.MonkeyPatch, length: str, matched: bool
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "mixup_hf.explorer.session.sweep", lambda *_, **how: asked.append(how) or "sweep"
    )
    session = Session(tiny_inverter, MixupConfig(length=length, hints="parents"))
    assert session.sweep(FIRST, SECOND, 2, 3) == session.sweep(FIRST, SECOND, 2, 3) == "sweep"
    assert asked == [{"hints": "parents", "match_length": matched, "seed": 3}]


@pytest.mark.parametrize(
    ("texts", "stops"), [(("", SECOND), 3), ((FIRST, " "), 3), ((FIRST, SECOND), 1)]
)
def test_bad_input_is_refused(tiny_inverter: Inverter, texts: tuple[str, str], stops: int) -> None:
    with pytest.raises(InvalidInput):
        sweep(tiny_inverter, *texts, DecodeSettings(6), num_stops=stops)


def test_hints_are_the_words_the_prompt_starts_with() -> None:
    inverter = make_inverter(num_hints=3, lexicon_words=6)
    assert inverter.aligner.hints is not None
    lexicon = inverter.aligner.hints.lexicon
    words = ["the", "a", "bank", "film", "win", "law"]
    ids = inverter.tokenizer.convert_tokens_to_ids(words)
    lexicon.set_words(torch.tensor(ids), torch.tensor([9, 8, 3, 3, 3, 3]), num_common=2)
    (stop, _) = sweep(inverter, FIRST, SECOND, DecodeSettings(4), num_stops=2).stops
    assert len(stop.hints) == 3
    assert set(stop.hints) < {"bank", "film", "win", "law"}  # not the common ones
    (hints,) = hint_words(inverter.aligner.hints, inverter.tokenizer, inverter.encode([SECOND]))
    assert tuple(hints) == stop.hints


def test_an_aligner_without_a_lexicon_has_no_hints(tiny_inverter: Inverter) -> None:
    assert tiny_inverter.aligner.hints is None
    found = sweep(tiny_inverter, FIRST, SECOND, DecodeSettings(4), num_stops=2)
    assert [stop.hints for stop in found.stops] == [(), ()]
