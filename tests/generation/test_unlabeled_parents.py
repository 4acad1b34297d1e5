"""Unlabelled texts among the parents of mixes: which, with whom, and what a row says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from labelling import FakeCommittee, committee_of
from tiny import FakeEncoder, fake_invert, make_producer
from torch import Tensor

from mixup_hf import MixedExample, errors
from mixup_hf.generation.generator import Producer
from mixup_hf.generation.labelling import Labelling
from mixup_hf.generation.once import Once
from mixup_hf.generation.unlabeled_parents import UnlabeledParents
from mixup_hf.judging.policies import Gate
from mixup_hf.judging.report import intrusion_report
from mixup_hf.mixing.interpolation import linear
from mixup_hf.training.samples import SampleTables

TEXTS = ["unlabelled " + number * "x" for number in range(30)]  # all embedded apart


def mixing(share: float = 0.5, *, seed: int = 0, texts: Sequence[str] = TEXTS) -> Producer:
    producer = make_producer(seed=seed, chunk_size=16)
    producer.labelling = Labelling(FakeCommittee)
    producer.unlabeled_parents = UnlabeledParents(texts, share, seed=seed, num_neighbors=3)
    return producer


def number_of_unlabeled(rows: Sequence[MixedExample]) -> np.ndarray:
    return np.bincount([len(row.unlabeled_parents) for row in rows], minlength=3)


def test_a_share_of_the_parents_is_unlabelled_and_the_committee_labels_the_mixes() -> None:
    rows = mixing().produce(0, 400)
    none, one, two = number_of_unlabeled(rows)
    assert none == pytest.approx(100, abs=35)
    assert one == pytest.approx(200, abs=40)
    assert two == pytest.approx(100, abs=35)
    for row in rows:
        assert len(row.parents) + len(row.unlabeled_parents) == len(row.shares) == 2
        assert all(0 <= parent < 24 for parent in row.parents)
        assert all(0 <= parent < 30 for parent in row.unlabeled_parents)
        assert row.label == pytest.approx(committee_of(row.text))
        assert row.lam == row.shares[0]
        assert sum(row.shares) == pytest.approx(1)
    assert number_of_unlabeled(mixing(1.0).produce(0, 20)).tolist() == [0, 0, 20]


def test_sentences_are_decoded_from_the_parents_that_a_row_names() -> None:
    producer, mixes = mixing(), []

    def invert(each: Tensor, seed: Sequence[int]) -> list[str]:
        mixes.append(each)
        return fake_invert(each, seed)

    producer.invert = invert
    rows = producer.produce(0, 30)
    real, other = FakeEncoder().encode(producer.texts), FakeEncoder().encode(TEXTS)
    for row, found in zip(rows, torch.cat(mixes), strict=True):
        ends = [real[at] for at in row.parents] + [other[at] for at in row.unlabeled_parents]
        lams = torch.tensor([row.lam])
        assert torch.allclose(found, linear(ends[0][None], ends[1][None], lams)[0], atol=1e-5)


def test_an_unlabelled_text_is_mixed_with_one_of_its_nearest() -> None:
    real, other = FakeEncoder().encode(make_producer().texts), FakeEncoder().encode(TEXTS)
    rows = mixing(1.0).produce(0, 60) + mixing(0.5).produce(0, 60)
    ranks: dict[int, set[int]] = {1: set(), 2: set()}
    for row in rows:
        if len(row.unlabeled_parents) == 2:
            first, second = row.unlabeled_parents
            assert first != second
            away = (other - other[first]).norm(dim=1), (other - other[second]).norm(dim=1)
            rank = min(
                int((away[0] <= away[0][second]).sum()), int((away[1] <= away[1][first]).sum())
            )
            ranks[2].add(rank - 1)
        elif row.unlabeled_parents:
            one, it = real[row.parents[0]], other[row.unlabeled_parents[0]]
            gap = (one - it).norm()
            near = [(pool - end).norm(dim=1) <= gap for pool, end in ((other, one), (real, it))]
            ranks[1].add(min(int(each.sum()) for each in near))
    assert ranks == {1: {1, 2, 3}, 2: {1, 2, 3}}


def test_rows_depend_on_seed_epoch_and_position_alone() -> None:
    rows = mixing().produce(1, 40)
    other = mixing()
    chunks = list(other.chunks(40))
    backwards = {chunk: other.chunk(1, chunk, 40) for chunk in reversed(chunks)}
    assert [row for chunk in chunks for row in backwards[chunk]] == rows
    for different in (mixing().produce(0, 40), mixing(seed=1).produce(1, 40)):
        assert [row.unlabeled_parents for row in different] != [
            row.unlabeled_parents for row in rows
        ]


def test_training_rows_among_themselves_are_mixed_as_planned() -> None:
    planned = {row.index: row for row in make_producer(chunk_size=16).produce(0, 60)}
    kept = [row for row in mixing(0.3).produce(0, 60) if not row.unlabeled_parents]
    assert len(kept) > 10
    for row in kept:
        assert (row.parents, row.shares) == (planned[row.index].parents, planned[row.index].shares)


@pytest.mark.parametrize(("policy", "others"), [("resample", False), ("drop", True)])
def test_redrawn_rows_keep_their_first_parent_or_all(policy: str, others: bool) -> None:
    producer = mixing()
    gate = Gate(
        None,
        producer.texts,
        producer.targets,
        FakeEncoder(),
        policy=policy,
        max_redraws=1,
        check_texts=True,
        unlabeled=TEXTS,
    )
    seen: list[list[MixedExample]] = []

    class Spy:
        """Sees the rows of both attempts."""

        def review(self, rows: Sequence[MixedExample], redraw: Any) -> list[MixedExample]:
            def again(*given: Any) -> list[MixedExample]:
                seen.append(redraw(*given))
                return seen[-1]

            seen.append(list(rows))
            return gate.review([replace(row, text="a a a a") for row in rows], again)

    producer.gate = Once(Spy)
    made = producer.produce(0, 8)
    before, after = seen
    assert [row.mitigation for row in made] == [f"redrawn:{'pair' if others else 'ratio'}"] * 8
    ends = [[(row.parents, row.unlabeled_parents) for row in each] for each in (before, after)]
    assert (ends[0] != ends[1]) == others
    for old, new in zip(before, after, strict=True):
        assert set(old.parents) & set(new.parents) or set(old.unlabeled_parents) & set(
            new.unlabeled_parents
        )


def test_an_unlabelled_parent_that_replaces_its_row_is_labelled_by_the_committee() -> None:
    producer = mixing(1.0)
    producer.invert = lambda mixes, seed: [""] * len(mixes)
    gate = Gate(
        None,
        producer.texts,
        producer.targets,
        FakeEncoder(),
        max_redraws=0,
        check_texts=True,
        unlabeled=TEXTS,
    )
    producer.gate = Once(lambda: gate)
    for row in producer.produce(0, 6):
        assert row.mitigation == "parent"
        assert row.text == TEXTS[row.unlabeled_parents[0]]
        assert row.label == pytest.approx(committee_of(row.text))


def test_a_copy_of_an_unlabelled_parent_is_found() -> None:
    gate = Gate(
        None, ["real"], torch.eye(1), FakeEncoder(), check_texts=True, unlabeled=["some more words"]
    )
    row = replace(mixing(1.0).produce(0, 1)[0], shares=(0.5, 0.5), parents=(0,))
    row = replace(row, text="Some more words!", unlabeled_parents=(0,), attempts=1)
    (found,) = gate._inspect([row])
    assert found.events == ("collapse",)


def test_a_changed_encoder_embeds_the_texts_again() -> None:
    producer = mixing()
    before = producer._parent_embeddings()
    producer.encoder = type("Other", (), {"encode": lambda _, texts: torch.ones(len(texts), 8)})()
    assert producer._parent_embeddings() is before
    producer.forget()
    assert torch.equal(producer._parent_embeddings(), torch.ones(54, 8))


def test_they_are_checked() -> None:
    with pytest.raises(errors.InvalidInput, match="unlabeled_parents"):
        UnlabeledParents(TEXTS, 1.5, seed=0, num_neighbors=3)
    with pytest.raises(errors.InvalidInput, match="number of unlabelled texts"):
        UnlabeledParents(TEXTS[:1], 0.5, seed=0, num_neighbors=3)


def test_reports_and_tables_take_such_rows() -> None:
    producer = mixing()
    rows = producer.produce(0, 60)
    labelled = [row for row in rows if not row.unlabeled_parents]
    found = intrusion_report(rows, producer.embeddings())
    assert found.overall == intrusion_report(labelled).overall
    tables = SampleTables(producer.texts, ["a", "b", "c"], "single_label_classification", 8)
    shown = {len(row.unlabeled_parents): tables._cells(row)["parents"] for row in rows}
    assert shown[2] == "an unlabelled text + an unlabelled text"
    assert shown[1].endswith("' + an unlabelled text")
