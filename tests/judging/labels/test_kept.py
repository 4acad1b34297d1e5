"""Members fitted by an earlier run say the same; they are fitted only for what is new."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelling import noting_fits, topic_inputs, topic_texts
from torch import Tensor

from mixup_hf.generation.votes import VoteStore
from mixup_hf.judging.labels import LabelInputs, fit_committee
from mixup_hf.judging.labels.kept import is_kept
from mixup_hf.registry import register, unregister

MEMBERS = ["encoder", "llm", "setfit"]
TEXTS, _ = topic_texts([6, 6, 6], start=100)
MORE, _ = topic_texts([2, 2, 2], start=200)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return noting_fits(monkeypatch)


def open_store(folder: Path, **identity: Any) -> VoteStore:
    return VoteStore(folder / "votes", {"rows": "these"} | identity, 8)


def test_a_second_run_fits_nothing_and_says_the_same(tmp_path: Path, fits: list[str]) -> None:
    inputs = topic_inputs([8, 8, 8])
    plain = fit_committee(inputs, MEMBERS, calibration_texts=MORE)
    fits.clear()
    for fitted in (MEMBERS, []):
        committee = fit_committee(
            inputs, MEMBERS, calibration_texts=MORE, store=open_store(tmp_path)
        )
        found, wanted = committee.label(TEXTS), plain.label(TEXTS)
        assert torch.equal(found.labels, wanted.labels)
        assert all(torch.equal(found.votes[name], wanted.votes[name]) for name in MEMBERS)
        assert committee.figures() == plain.figures()
        assert fits == fitted
        fits.clear()


def test_for_other_texts_members_are_fitted_then(
    tmp_path: Path, fits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = topic_inputs([8, 8, 8])
    fit_committee(inputs, MEMBERS, store=open_store(tmp_path)).label(TEXTS)
    fits.clear()
    committee = fit_committee(inputs, MEMBERS, store=open_store(tmp_path))
    committee.label(TEXTS)
    assert fits == []
    found = committee.label(MORE).labels
    assert capsys.readouterr().err.count("fitting the member encoder of the committee") == 1
    assert sorted(fits) == sorted(MEMBERS)
    assert torch.equal(found, fit_committee(inputs, MEMBERS).label(MORE).labels)
    fits.clear()
    committee.label(TEXTS[:3])  # in a batch of its own, to the last digit
    assert fits == []  # once in a run


def test_another_training_set_has_its_own(tmp_path: Path, fits: list[str]) -> None:
    inputs = topic_inputs([8, 8, 8])
    fit_committee(inputs, MEMBERS, store=open_store(tmp_path))
    assert is_kept("encoder", open_store(tmp_path))
    assert not is_kept("encoder", open_store(tmp_path, rows="others"))
    assert not is_kept("knn", open_store(tmp_path))


def test_members_of_others_are_fitted_every_time(tmp_path: Path, fits: list[str]) -> None:
    """Their code may change without a version that is known here."""

    class Even:
        max_folds = 2

        def fit(self, rows: np.ndarray) -> Any:
            def predict(texts: Sequence[str]) -> Tensor:
                return torch.full((len(texts), 3), 1 / 3)

            return predict

    @register("member", "even", help="knows nothing")
    def build(inputs: LabelInputs) -> Any:
        return Even()

    try:
        for _ in range(2):
            fit_committee(topic_inputs([8, 8, 8]), ["encoder", "even"], store=open_store(tmp_path))
    finally:
        unregister("member", "even")
    assert fits == ["encoder", "even", "even"]


def test_a_folder_that_cannot_be_written_costs_only_the_fit(
    tmp_path: Path, fits: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "votes").write_text("a file")
    inputs = topic_inputs([8, 8, 8])
    found = fit_committee(inputs, ["encoder"], store=open_store(tmp_path)).label(TEXTS)
    assert torch.equal(found.labels, fit_committee(inputs, ["encoder"]).label(TEXTS).labels)
    assert "cannot be cached" in caplog.text


def test_what_is_no_prediction_is_made_again(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store._store.put(store._key("encoder", ["a text"]), ["no prediction"])
    assert store.get("encoder", ["a text"]) is None


def test_all_digits_are_kept(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for votes in (torch.rand(3, 2, dtype=torch.float64), torch.rand(0, 2), torch.rand(4, 1)):
        store.put("encoder", [str(votes.shape)], votes)
        found = open_store(tmp_path).get("encoder", [str(votes.shape)])
        assert found is not None
        assert found.dtype == votes.dtype
        assert torch.equal(found, votes)
    assert store.get("encoder", ["others"]) is None
