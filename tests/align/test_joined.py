"""Two sentences joined: a mix whose text is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from aligning import make_config, save_partners
from tiny import FakeEncoder

from mixup_hf.align.joined import StackedRows, joined_embeddings, joined_pairs, with_joined
from mixup_hf.align.session import Session
from mixup_hf.evaluation.ratio_recovery import recovered_lam

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen"
SENTENCES = ["the market fell", "a new film star is born", LONG, "who won?", "red wine"]


def test_a_joined_text_is_two_different_sentences_the_longer_one_first() -> None:
    texts, pairs = joined_pairs(SENTENCES, 200, seed=0)
    assert pairs.shape == (200, 2)
    assert set(pairs[:, 0]) == {0, 1, 2, 3, 4}
    assert set(pairs[:, 1]) == {0, 1, 3, 4}  # always a short one
    for text, (i, j) in zip(texts, pairs, strict=True):
        assert i != j
        assert len(SENTENCES[i].split()) >= len(SENTENCES[j].split())
        assert text.endswith(SENTENCES[j])
    assert {"the market fell. red wine", "the market fell. who won?"} <= set(texts)
    assert any(text.startswith("who won? ") for text in texts)  # ended as it was


def test_the_seed_decides_who_is_joined() -> None:
    assert joined_pairs(SENTENCES, 20, seed=1)[0] == joined_pairs(SENTENCES, 20, seed=1)[0]
    assert joined_pairs(SENTENCES, 20, seed=1)[0] != joined_pairs(SENTENCES, 20, seed=2)[0]


def test_nothing_short_to_join_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`joined_share` joins .* 8 words .* 1 of them"):
        joined_pairs([LONG, "the market fell"], 4, seed=0)


def test_every_second_row_is_the_mix_that_lies_where_the_text_does() -> None:
    draw = torch.Generator().manual_seed(0)
    joined, first, second = (torch.randn(6, 8, generator=draw) for _ in range(3))
    joined = joined * 0.2 + 0.7 * first + 0.3 * second
    rows = joined_embeddings(joined, first, second)
    torch.testing.assert_close(rows[::2], joined[::2])
    lams = recovered_lam(joined, first, second)[1::2, None]
    assert ((lams > 0.4) & (lams < 1)).all()
    torch.testing.assert_close(rows[1::2], lams * first[1::2] + (1 - lams) * second[1::2])


def test_joined_texts_are_the_share_that_was_asked_for() -> None:
    def embed(texts: list[str]) -> np.ndarray:
        return FakeEncoder().encode(texts).numpy()

    singles = SENTENCES * 6
    texts, rows = with_joined(singles, embed(singles), 0.25, 0, embed)
    assert len(texts) == len(rows) == 40
    assert texts[:30] == singles
    np.testing.assert_allclose(rows[np.array([0, 30])], embed([texts[0], texts[30]]), atol=1e-3)
    assert with_joined(singles, embed(singles), 0.0, 0, embed)[0] == singles


def test_stacked_rows_read_as_one_array() -> None:
    whole = np.arange(14, dtype=np.float16).reshape(7, 2)
    stacked = StackedRows(whole[:4], whole[4:])
    rows = np.array([6, 0, 4, 3])
    assert len(stacked) == 7
    np.testing.assert_array_equal(stacked[rows], whole[rows])


def test_alignment_learns_them_with_the_others(tmp_path: Path) -> None:
    config = make_config(save_partners(tmp_path), tmp_path / "out", joined_share=0.2)
    session = Session(config, torch.device("cpu"))
    plain = len(session.sentences) * 4 // 5
    assert session.batches.num_sentences == len(session.embeddings) == len(session.sentences)
    assert all(". " in text for text in session.sentences[plain:])
    assert not any(". " in text for text in session.sentences[:plain])
    assert session.words is not None
    assert len(session.words.embeddings) == 50  # 40 sentences, and one in five of all
