from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny import FakeEncoder, make_rows
from torch import Tensor
from torch.nn import functional as F

from mixup_hf.cli.pages import fidelity
from mixup_hf.evaluation.fidelity import (
    Fidelity,
    cross_topic_pairs,
    lam_recovery,
    measure_fidelity,
    recovered_lam,
    recovered_lam_linear,
)
from mixup_hf.evaluation.text_scores import bleu, rouge_l, token_f1, word_f1
from mixup_hf.mixing.interpolation import linear


class NearestText:
    """Inverts perfectly at the ends and as well as its own texts allow between them."""

    def __init__(self, texts: list[str], honest: bool = True) -> None:
        self.encoder, self.texts, self.honest = FakeEncoder(), texts, honest
        self.table = self.encoder.encode(texts)

    def encode(self, texts: Sequence[str]) -> Tensor:
        return self.encoder.encode(texts)

    def mix_weights(self, lams: Tensor) -> Tensor:
        return lams

    def invert(
        self,
        embeddings: Tensor,
        *,
        temperature: float,
        num_candidates: int = 1,
        seed: int | Sequence[int] = 0,
    ) -> list[str]:
        if not self.honest:
            return [self.texts[0]] * len(embeddings)
        return [self.texts[int(row)] for row in torch.cdist(embeddings, self.table).argmin(1)]


def test_token_f1_counts_shared_tokens_in_any_order() -> None:
    assert token_f1("the red market", "Market the red") == 1.0
    assert token_f1("the red", "the blue green market") == pytest.approx(2 / 6)
    assert token_f1("film", "market") == 0.0
    assert token_f1("the film", "the film.") == pytest.approx(4 / 5)  # the full stop is a token


def test_word_f1_gives_nothing_for_punctuation() -> None:
    assert word_f1("film.", "market.") == 0.0
    assert token_f1("film.", "market.") == 0.5
    assert word_f1("Film!", "film") == 1.0
    assert word_f1("...", "film") == 0.0


def test_rouge_l_follows_the_longest_common_subsequence() -> None:
    assert rouge_l("the red market", "the red market") == 1.0
    # "the market" of 3 and 3 words
    assert rouge_l("the old market", "the red market") == pytest.approx(2 / 3)
    assert rouge_l("market the", "the market") == pytest.approx(1 / 2)


def test_bleu_is_100_for_the_same_sentences() -> None:
    same = ["the red market is good today", "where was the old film"]
    assert bleu(same, same) == pytest.approx(100)


def parents() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first, second = F.normalize(
        torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    lams = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    return first, second, lams, linear(first, second, lams)


def across(first: Tensor, second: Tensor) -> Tensor:
    """Something that has nothing of either parent."""
    basis = torch.linalg.qr(torch.stack([first, second], dim=-1)).Q
    noise = torch.randn(len(first), 8, 1, generator=torch.Generator().manual_seed(1))
    return (noise - basis @ (basis.transpose(1, 2) @ noise))[..., 0]


def test_recovered_lam_is_exact_on_the_line_whatever_is_lost_of_both() -> None:
    first, second, lams, on_the_line = parents()
    torch.testing.assert_close(recovered_lam(on_the_line, first, second), lams)
    landed = F.normalize(0.4 * on_the_line + across(first, second), dim=-1)
    torch.testing.assert_close(recovered_lam(landed, first, second), lams)


def test_recovered_lam_is_the_best_ratio_of_a_grid() -> None:
    first, second, _, _ = parents()
    landed = F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(3)), dim=-1)
    grid = torch.linspace(0, 1, 2001)
    for row in range(5):
        mixes = linear(first[row].expand(2001, -1), second[row].expand(2001, -1), grid)
        best = grid[(F.normalize(mixes, dim=-1) @ landed[row]).argmax()]
        found = recovered_lam(landed[row : row + 1], first[row : row + 1], second[row : row + 1])
        if F.normalize(mixes, dim=-1).matmul(landed[row]).max() > 0:
            assert float(found) == pytest.approx(float(best), abs=1e-3)


def test_recovered_lam_linear_is_exact_on_the_line_and_shrinks_with_what_is_lost() -> None:
    first, second, lams, on_the_line = parents()
    torch.testing.assert_close(recovered_lam_linear(on_the_line, first, second), lams)
    shrunk = recovered_lam_linear(0.5 * on_the_line, first, second)
    assert np.polyfit(lams, shrunk, 1)[0] < 0.8


def test_something_unrelated_to_both_parents_is_half_way() -> None:
    first, second, _, _ = parents()
    assert recovered_lam(-first - second, first, second).tolist() == [0.5] * 5


def test_lam_recovery_of_a_perfect_and_of_a_deaf_decoder() -> None:
    asked = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    perfect = lam_recovery(asked, asked)
    assert perfect["slope"] == pytest.approx(1)
    assert perfect["spearman"] == pytest.approx(1)
    deaf = lam_recovery(asked, np.array([0.5, 0.4, 0.6, 0.4, 0.5]))
    assert abs(deaf["slope"]) < 0.2
    assert lam_recovery(asked, np.full(5, 0.5)) == {"slope": 0.0, "r2": 0.0, "spearman": 0.0}


ORIGINS = ("news",) * 5 + ("fiction",) * 15


@cache
def measured(honest: bool = True, origins: tuple[str, ...] | None = None) -> Fidelity:
    texts, _ = make_rows(20)
    return measure_fidelity(NearestText(texts, honest), texts, num_pairs=5, origins=origins)


def test_a_perfect_inverter_scores_one_and_a_parrot_does_not() -> None:
    perfect, parrot = measured(), measured(honest=False)
    for name in ("cosine", "token_f1", "word_f1", "rouge_l"):
        assert perfect.overall[name].value == pytest.approx(1)
        assert perfect.overall[name].low == pytest.approx(1)
        assert parrot.overall[name].value < 0.5
    assert perfect.control["spearman"].value > 0.5
    assert abs(parrot.control["slope"].value) < 0.2
    assert parrot.distinct == 1 / 200


def test_intervals_hold_the_value() -> None:
    found = measured(honest=False)
    for interval in [*found.overall.values(), *found.control.values()]:
        assert interval.low <= interval.value <= interval.high


def test_pairs_for_the_control_are_less_alike_than_random_ones() -> None:
    vectors = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    pairs = cross_topic_pairs(vectors, 200, np.random.default_rng(0))
    assert pairs.shape == (200, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert F.cosine_similarity(vectors[pairs[:, 0]], vectors[pairs[:, 1]]).mean() < -0.25


def test_groups_cover_every_sentence() -> None:
    found = measured(origins=ORIGINS)
    assert {name: each["count"] for name, each in found.by_origin.items()} == {
        "news": 5,
        "fiction": 15,
    }
    assert sum(each["count"] for each in found.by_length.values()) == 20
    assert measured().by_origin == {}


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`origins` must name one of each of 20, but got 3"):
        measured(origins=("a", "b", "c"))
    texts, _ = make_rows(20)
    with pytest.raises(ValueError, match="`num_candidates`"):
        measure_fidelity(NearestText(texts), texts, num_candidates=0)


def test_the_report_is_printed_and_written(tmp_path: Path) -> None:
    found = measured(origins=ORIGINS)
    console = Console(record=True, width=160)
    fidelity.show(console, found, "a title")
    text = console.export_text()
    for expected in ("a title", "token_f1", "lambda slope", "news", "sentences per second"):
        assert expected in text
    report, picture = fidelity.write(tmp_path / "new", found, "a title")
    content = json.loads(report.read_text())
    assert content["overall"] == {
        name: dataclasses.asdict(each) for name, each in found.overall.items()
    }
    assert picture.read_bytes().startswith(b"\x89PNG")
