from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mixup_hf.generation.readability import check_readability

ENGLISH = [f"the market number {at} is red" for at in range(100)]


class Reader:
    """Reproduces every text, or none."""

    def __init__(self, perfect: bool) -> None:
        self.perfect = perfect
        self.seen: list[str] = []

    def encode(self, texts: list[str]) -> Tensor:
        self.seen = self.seen or list(texts)
        rows = [torch.Generator().manual_seed(hash(text) % 2**31) for text in texts]
        return torch.stack([torch.randn(256, generator=generator) for generator in rows])

    def invert(self, embeddings: Tensor, **settings: Any) -> list[str]:
        assert settings["temperature"] == 0
        if self.perfect:
            return list(self.seen)
        return [f"something else {at}" for at in range(len(embeddings))]


def check(texts: list[str], *, perfect: bool = True, **settings: Any) -> Any:
    return check_readability(Reader(perfect), texts, **settings)  # type: ignore[arg-type]


def test_texts_that_are_reproduced_need_no_warning() -> None:
    found = check(ENGLISH, max_words=30)
    assert found.texts == 32
    assert found.mean == pytest.approx(1, abs=1e-5)
    assert found.readable
    assert found.warning == ""
    assert "mean cosine 1.00" in found.summary


def test_a_good_round_trip_is_printed_and_a_poor_one_is_a_warning(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Only warnings used to be seen in a script that configures no logging."""
    check(ENGLISH, max_words=30).accepted(fail=False)
    assert "mixup_hf: round trip of 32 training texts: mean cosine 1.00" in capsys.readouterr().err
    check(ENGLISH, perfect=False).accepted(fail=False)
    assert "cannot reproduce these texts" in caplog.text
    assert capsys.readouterr().err == ""


def test_texts_that_are_not_reproduced_are_unreadable() -> None:
    found = check(ENGLISH, perfect=False)
    assert not found.readable
    assert "cannot reproduce these texts" in found.warning
    assert found.low_share > 0.9


@pytest.mark.parametrize(
    ("texts", "cause"),
    [
        (["今天天气很好", "政府宣布新的税收"], "100% of the letters are not Latin"),
        (["great 🔥", "!!!"], "100% of the texts contain emoji or no letters"),
        (["word " * 50, "short"], "50% of the texts are longer than the 30 words"),
    ],
)
def test_script_emoji_and_length_are_named(texts: list[str], cause: str) -> None:
    found = check(texts, max_words=30)
    assert cause in found.warning
    assert "differ from those" in found.warning


def test_latin_letters_with_marks_and_pairs_are_no_cause() -> None:
    assert check(["Größe überall"]).causes == []
    assert check(["premise one\x1ehypothesis one"]).texts == 2


def test_the_sample_depends_on_the_seed_alone() -> None:
    one, two, other = Reader(True), Reader(True), Reader(True)
    for reader, seed in ((one, 0), (two, 0), (other, 1)):
        check_readability(reader, ENGLISH, seed=seed)  # type: ignore[arg-type]
    assert one.seen == two.seen != other.seen
