from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tiny import FakeEncoder, make_rows
from torch import Tensor

from mixup_hf.align.fidelity import (
    bleu,
    lam_recovery,
    measure_fidelity,
    recovered_lam,
    token_f1,
)
from mixup_hf.mixing import linear


class NearestText:
    """Inverts perfectly at the ends and as well as its own texts allow between them."""

    def __init__(self, texts: list[str], honest: bool = True) -> None:
        self.encoder, self.texts, self.honest = FakeEncoder(), texts, honest
        self.table = self.encoder.encode(texts)

    def encode(self, texts: Sequence[str]) -> Tensor:
        return self.encoder.encode(texts)

    def invert(self, embeddings: Tensor, *, temperature: float) -> list[str]:
        if not self.honest:
            return [self.texts[0]] * len(embeddings)
        return [self.texts[int(row)] for row in torch.cdist(embeddings, self.table).argmin(1)]


def test_token_f1_counts_shared_words_in_any_order() -> None:
    assert token_f1("the red market", "Market the red") == 1.0
    assert token_f1("the red", "the blue green market") == pytest.approx(2 / 6)
    assert token_f1("film", "market") == 0.0


def test_bleu_is_100_for_the_same_sentences() -> None:
    same = ["the red market is good today", "where was the old film"]
    assert bleu(same, same) == pytest.approx(100)


def test_recovered_lam_is_exact_on_the_line_and_ignores_what_is_across() -> None:
    first, second = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    lams = torch.tensor([0.0, 0.25, 0.5, 1.0, 1.2])
    on_the_line = linear(first, second, lams)
    torch.testing.assert_close(recovered_lam(on_the_line, first, second), lams)
    across = torch.randn(5, 8)
    direction = first - second
    across -= direction * ((across * direction).sum(-1) / direction.square().sum(-1))[:, None]
    torch.testing.assert_close(recovered_lam(on_the_line + across, first, second), lams)


def test_lam_recovery_of_a_perfect_and_of_a_deaf_decoder() -> None:
    asked = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    perfect = lam_recovery(asked, asked)
    assert perfect["lam_slope"] == pytest.approx(1)
    assert perfect["lam_spearman"] == pytest.approx(1)
    deaf = lam_recovery(asked, torch.tensor([0.5, 0.4, 0.6, 0.4, 0.5]))
    assert abs(deaf["lam_slope"]) < 0.2


def test_a_perfect_inverter_scores_one_and_a_parrot_does_not() -> None:
    texts, _ = make_rows(20)
    perfect = measure_fidelity(NearestText(texts), texts, num_pairs=10)
    assert perfect["cosine"] == pytest.approx(1)
    assert perfect["token_f1"] == pytest.approx(1)
    assert perfect["lam_spearman"] > 0.5
    parrot = measure_fidelity(NearestText(texts, honest=False), texts, num_pairs=10)
    assert parrot["cosine"] < 0.5
    assert abs(parrot["lam_slope"]) < 0.2
