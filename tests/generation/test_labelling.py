"""Labels by a committee: after the gate, whatever the chunks; unlabelled texts among the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from judging_data import ROW
from labelling import FakeCommittee, committee_of
from tiny import make_producer

from mixup_hf import MixedExample, errors, runtime
from mixup_hf.generation.generator import Producer
from mixup_hf.generation.labelling import Labelling
from mixup_hf.generation.once import Once
from mixup_hf.generation.unlabeled import UNLABELED, UnlabeledTexts

TEXTS = [f"unlabelled {number}" for number in range(7)]


def labelled(share: float = 1.0, unlabeled: float | None = None, chunk_size: int = 4) -> Producer:
    producer = make_producer(chunk_size=chunk_size)
    producer.labelling = Labelling(FakeCommittee, share)
    if unlabeled is not None:
        producer.unlabeled = UnlabeledTexts(TEXTS, unlabeled, seed=0, rows_per_refill=6)
    return producer


def test_the_committee_labels_every_row_and_its_votes_are_kept() -> None:
    plain, rows = make_producer().produce(0, 10), labelled().produce(0, 10)
    for before, row in zip(plain, rows, strict=True):
        assert row.label == pytest.approx(committee_of(row.text))
        votes = {"first": row.votes["first"], "second": row.votes["first"][::-1]}
        assert row.votes == votes
        assert row.votes["first"] == pytest.approx(row.label, abs=1e-4)
        assert replace(row, label=before.label, votes={}) == before


def test_a_blend_lies_halfway_between_parents_and_committee() -> None:
    plain, rows = make_producer().produce(0, 10), labelled(0.5).produce(0, 10)
    for before, row in zip(plain, rows, strict=True):
        both = zip(before.label, committee_of(row.text), strict=True)
        assert row.label == pytest.approx([(own + given) / 2 for own, given in both])
        assert sum(row.label) == pytest.approx(1)


def test_labels_do_not_depend_on_which_chunks_are_made_or_in_what_order() -> None:
    rows = labelled(unlabeled=0.3).produce(1, 14)
    other = labelled(unlabeled=0.3)
    backwards = {chunk: other.chunk(1, chunk, 14) for chunk in (3, 1, 2, 0)}
    assert [row for chunk in sorted(backwards) for row in backwards[chunk]] == rows
    assert labelled(unlabeled=0.3).chunk(1, 2, 14) == rows[8:12]  # as a resumed run begins


def test_the_gate_comes_before_the_labels() -> None:
    class Gate:
        """Lets through what the parents label, and puts a parent in place of the second row."""

        def review(self, rows: Sequence[MixedExample], redraw: object) -> list[MixedExample]:
            assert not any(row.votes for row in rows)
            assert all(abs(max(row.label) - 1) < 1e-6 or row.lam < 1 for row in rows)
            parent = replace(rows[1], text="a parent", label=(0.0, 1.0, 0.0), mitigation="parent")
            return [replace(rows[0], text="redrawn"), parent, *rows[2:]]

    producer = labelled()
    producer.gate = Once(Gate)
    rows = producer.produce(0, 4)
    assert rows[0].label == pytest.approx(committee_of("redrawn"))
    assert rows[1].label == (0.0, 1.0, 0.0)
    assert rows[1].votes["first"] == pytest.approx(committee_of("a parent"), abs=1e-4)


def test_the_committee_is_made_once_and_only_when_rows_are() -> None:
    made: list[FakeCommittee] = []

    def make() -> FakeCommittee:
        made.append(FakeCommittee())
        return made[-1]

    labelling = Labelling(make)
    assert labelling.apply([]) == []
    assert not made
    first, second = make_producer(), make_producer(seed=1)
    first.labelling = second.labelling = labelling
    for producer in (first, second):
        producer.produce(0, 9)
    assert len(made) == 1


def test_a_sentence_without_characters_is_shown_to_the_committee_as_a_full_stop() -> None:
    committee = FakeCommittee()
    Labelling(lambda: committee).apply([replace(ROW, text="")])
    assert committee.asked == ["."]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_share_of_the_positions_are_unlabelled_texts_as_they_are(share: float) -> None:
    rows = labelled(unlabeled=share).produce(0, 20)
    taken = [row for row in rows if row.method == UNLABELED]
    assert len(taken) == int(20 * share)
    assert [row.index for row in rows] == list(range(20))
    for row in taken:
        assert row.text in TEXTS
        assert (row.parents, row.shares, row.lam) == ((), (), 1.0)
        assert row.label == pytest.approx(committee_of(row.text))
        assert set(row.votes) == {"first", "second"}


def test_mixes_beside_unlabelled_texts_are_those_of_the_plan() -> None:
    plain, rows = make_producer().produce(0, 12), labelled(unlabeled=0.5).produce(0, 12)
    kept = [(row.index, row.parents, row.lam) for row in rows if row.method != UNLABELED]
    assert kept == [(row.index, row.parents, row.lam) for row in plain if row.index % 2 == 0]


def test_nothing_is_decoded_where_all_positions_are_unlabelled_texts() -> None:
    producer = labelled(unlabeled=1.0)
    producer.produce(0, 9)
    assert producer.decoded == 0


def test_every_unlabelled_text_is_used_once_before_one_is_used_twice() -> None:
    source = UnlabeledTexts(TEXTS, 0.5, seed=3, rows_per_refill=6)
    drawn = [source.at(epoch, index) for epoch in range(8) for index in range(6)]
    used = [text for text in drawn if text is not None]
    assert len(used) == 24
    turns = [used[start : start + 7] for start in range(0, 21, 7)]
    assert all(sorted(turn) == TEXTS for turn in turns)
    assert turns[0] != turns[1]
    assert source.first(3) == turns[0][:3]
    other = UnlabeledTexts(TEXTS, 0.5, seed=4, rows_per_refill=6)
    assert other.first(7) != source.first(7)


def test_unlabelled_texts_are_checked() -> None:
    with pytest.raises(errors.InvalidInput, match="unlabeled_share"):
        UnlabeledTexts(TEXTS, 1.5, seed=0, rows_per_refill=6)
    with pytest.raises(errors.InvalidInput, match="at least one text"):
        UnlabeledTexts([], 0.5, seed=0, rows_per_refill=6)


def test_the_first_sentences_are_those_before_any_gate_or_label() -> None:
    producer = labelled(unlabeled=0.5)
    plain = make_producer().produce(0, 12)
    assert producer.first_sentences(9) == [row.text for row in plain]


def test_processes_that_share_the_chunks_get_the_rows_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = labelled(unlabeled=0.5).produce(1, 14)
    union: dict[int, list[MixedExample]] = {}
    monkeypatch.setattr(runtime, "world_size", lambda: 3)
    monkeypatch.setattr(runtime, "merge", lambda part: union.update(part) or union)
    for rank in range(3):
        monkeypatch.setattr(runtime, "rank", lambda rank=rank: rank)
        rows = labelled(unlabeled=0.5).produce(1, 14)
    assert rows == alone
