"""Rows under review: decisions, edits, votes, and the file that a Trainer can train on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mixup_hf import OfflineMixup
from mixup_hf.errors import InvalidInput, InvalidState
from mixup_hf.explorer.labelled_set import LabelledSet
from mixup_hf.explorer.review import EDITED, Review
from mixup_hf.explorer.session import EXAMPLE, Session


@pytest.fixture
def review(labelled_set: LabelledSet) -> Review:
    review = Review(labelled_set)
    review.sample(3)
    return review


def test_kept_rows_are_written_as_a_trainer_reads_them(review: Review, tmp_path: Path) -> None:
    review.sample(2)
    for place, decision in enumerate(("kept", "rejected", "open", "kept", "kept")):
        review.decide(place, decision)  # type: ignore[arg-type]
    review.edit(3, "  the  new goal ", "sport")
    assert review.export(tmp_path / "kept.jsonl") == 3
    data = review.data
    offline = OfflineMixup(
        tmp_path / "kept.jsonl", data.texts, data.table.labels, label_names=data.names
    )
    read = list(offline.producer.rows)
    assert [row.text for row in read] == [row.text for row in review.kept()]
    assert read[1].text == "the new goal"
    assert read[1].label == (0.0, 0.0, 1.0) and data.names[2] == "sport"
    assert read[1].mitigation == EDITED
    chosen = data.mixup.chosen  # votes are there: used alike
    assert offline.chosen.label_source == chosen.label_source
    run = json.loads((tmp_path / "kept.jsonl.run.json").read_text())
    assert "num_samples" not in run  # two batches of unequal size
    with pytest.raises(InvalidInput, match="was generated from other texts"):
        OfflineMixup(tmp_path / "kept.jsonl", data.texts[::-1], data.table.labels[::-1])


def test_an_edit_is_voted_on_anew_and_can_be_taken_back(review: Review) -> None:
    before = review.drafts[0].row
    assert set(before.votes) == {"encoder", "knn"}
    assert review.edit(0, "the bank profit of the market")
    after = review.drafts[0].row
    assert after.votes != before.votes and after.label == before.label
    expected = review.data.vote([after.text]).members["knn"][0]
    assert after.votes["knn"] == pytest.approx(expected.tolist(), abs=1e-4)
    assert review.drafts[0].edited
    assert not review.edit(0, after.text)  # nothing new
    review.edit(0, before.text)
    assert not review.drafts[0].edited and review.drafts[0].row == before


def test_another_label_does_not_make_a_copy_of_a_training_text_a_new_one(review: Review) -> None:
    draft = review.drafts[0]
    copied = replace(draft.generated, mitigation="parent")
    review.drafts[0] = replace(draft, row=copied, generated=copied)
    other = next(name for at, name in enumerate(review.data.names) if at != copied.hard_label)
    assert review.edit(0, copied.text, other)
    assert review.drafts[0].row.is_copy and review.drafts[0].edited
    review.edit(0, "the bank profit of the market")
    assert review.drafts[0].row.mitigation == EDITED


def test_the_next_open_row_is_found_from_the_start_again(review: Review) -> None:
    review.decide(2, "rejected")
    assert [review.next_open(place) for place in range(3)] == [1, 0, 0]
    review.decide(0, "kept")
    review.decide(1, "kept")
    assert review.next_open(1) == 1
    assert review.counts() == {"open": 0, "kept": 2, "rejected": 1}


def test_bad_edits_and_empty_exports_are_refused(review: Review, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="`text`"):
        review.edit(0, "  ")
    with pytest.raises(InvalidInput, match="`label` must be one of 'film', 'news', 'sport'"):
        review.edit(0, "the film", "weather")
    with pytest.raises(InvalidInput, match="no such row"):
        review.decide(3, "kept")
    with pytest.raises(InvalidInput, match="No row has been kept yet"):
        review.export(tmp_path / "kept.jsonl")
    assert not (tmp_path / "kept.jsonl").exists()
    with pytest.raises(InvalidInput, match="rows"):
        review.sample(0)


def test_further_samples_are_other_rows(labelled_set: LabelledSet) -> None:
    review = Review(labelled_set)
    review.sample(2)
    assert review.sample(2) == 2
    keys = {(draft.row.epoch, draft.row.index) for draft in review.drafts}
    assert len(keys) == 4


def test_labels_of_other_kinds(other_set: Callable[..., LabelledSet], tmp_path: Path) -> None:
    numbers = Review(other_set([at / 8 + 0.1 for at in range(24)], committee=("encoder",)))
    numbers.sample(1)
    numbers.edit(0, "the tax law", "0.75")
    assert numbers.drafts[0].row.label == (0.75,)
    assert numbers.data.words_of((0.75,)) == "0.75" and not numbers.data.judge(["a film"]).judges
    with pytest.raises(InvalidInput, match="`label` must be a number"):
        numbers.edit(0, "the tax law", "much")
    several = Review(other_set([["new"], ["new", "old"], ["old"]] * 8))
    several.sample(1)
    several.edit(0, "the tax law", ["old", "new"])
    assert several.drafts[0].row.label == (1.0, 1.0)
    assert several.data.words_of((1.0, 0.0)) == "new"
    for review in (numbers, several):
        review.decide(0, "kept")
        assert review.export(tmp_path / "kept.csv") == 1


def test_votes_wait_for_the_committee(session: Session, labelled_set: LabelledSet) -> None:
    labelled_set.committee_ready = False
    votes = session.votes(["the film star"])
    assert set(votes.judges) == {"knn"} and not votes.members and votes.together is None
    votes = session.votes(["the film star", "a goal"], fit=True)
    assert set(votes.members) == {"encoder", "knn"}
    assert votes.together is not None
    assert votes.together.sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert session.votes(["the film star"]).together is not None  # fitted, so asked at once
    committee = labelled_set.mixup.committee
    assert committee is not None
    assert torch.equal(committee.label(["a goal"]).labels, session.votes(["a goal"]).together)


def test_a_session_without_rows_mixes_all_the_same(labelled_set: LabelledSet) -> None:
    mixup = labelled_set.mixup
    session = Session(mixup.inverter, mixup.config)
    assert session.texts(0) == EXAMPLE and session.review is None
    assert session.sweep("a film", "a goal", 2, 0) is session.sweep(" a film", "a goal ", 2, 0)
    assert session.votes(["a film"]).judges == {}
    with pytest.raises(InvalidState, match="needs a data set"):
        session.map()
    for bad in (("", "a goal", 1, 0), ("a film", "a goal", 0, 0), ("a film", "a goal", 1, -1)):
        with pytest.raises(InvalidInput):
            session.sweep(*bad)


def test_pairs_to_begin_with_differ_in_label(session: Session, labelled_set: LabelledSet) -> None:
    labels = dict(zip(labelled_set.texts, labelled_set.table.labels, strict=True))
    drawn = [session.texts(number) for number in range(5)]
    assert all(labels[first] != labels[second] for first, second in drawn)
    assert len(set(drawn)) > 1 and drawn[0] == session.texts(0)


def test_kept_rows_never_replace_those_of_a_day_before(
    labelled_set: LabelledSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept.jsonl").write_text("yesterday\n")
    session = Session(labelled_set.mixup.inverter, labelled_set.mixup.config)
    assert session.output == tmp_path / "kept-2.jsonl"


def test_the_map_holds_the_parents_of_all_generated_rows(session: Session) -> None:
    assert session.review is not None
    assert session.map().drafts == []
    session.review.sample(3)
    shown = session.map()
    assert shown.projection.made.shape == (3, 2)
    assert {parent for draft in shown.drafts for parent in draft.row.parents} <= set(shown.rows)


def test_a_plugin_that_labels_by_parents_has_no_committee(
    other_set: Callable[..., LabelledSet],
) -> None:
    data = other_set(label_source="parents")
    assert data.mixup.committee is None and not data.has_committee
    assert data.vote(["a film"]).together is None


def test_keeping_a_copy_as_it_is_shown_leaves_it_a_copy(review: Review) -> None:
    """The page shows texts in one line: a text with two spaces is not edited by pressing Keep."""
    draft = review.drafts[0]
    copy = replace(draft.row, text="a real  text\nof the user's", mitigation="parent")
    review.drafts[0] = replace(draft, row=copy, generated=copy)
    assert not review.edit(0, "a real text of the user's")
    assert review.drafts[0].row == copy and review.drafts[0].row.is_copy
