"""A committee's labels through the plugin: gate, unlabelled texts, settings, resume."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch
from labelling import noting_fits
from tiny import make_classifier, make_dataset, make_inverter, make_rows, word_tokenizer
from trainer_runs import make_arguments
from transformers import Trainer

from mixup_hf import InversedMixup, Inverter, MixupConfig, errors
from mixup_hf.data.row_files import mixed_json, read_mixed
from mixup_hf.data.row_writer import write_rows
from mixup_hf.data.rows import open_rows, save_rows
from mixup_hf.generation.unlabeled import UNLABELED
from mixup_hf.training import committee

TEXTS, LABELS = make_rows(24)
MORE = ["new big price", "old team", "film star song", "bank law tax city", "what is red"]
FAST: dict[str, Any] = {
    "max_new_tokens": 4,
    "chunk_size": 4,
    "label_source": "committee",
    "committee": ("encoder",),
    "on_unreadable": "off",
}


@pytest.fixture(scope="module")
def inverter() -> Inverter:
    return make_inverter()


def make(inverter: Inverter, settings: dict[str, Any] | None = None, **given: Any) -> InversedMixup:
    config = MixupConfig(**(FAST | (settings or {})))
    return InversedMixup(inverter, TEXTS, LABELS, config=config, **given)


def test_all_default_members_vote_and_the_committee_is_announced_once(
    inverter: Inverter, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    mixup = make(inverter, {"committee": ("encoder", "llm", "setfit")})
    with caplog.at_level(logging.WARNING, "mixup_hf"):  # else the line goes to the log
        rows = mixup.generate(9) + mixup.generate(5, epoch=1)
    assert all(set(row.votes) == {"encoder", "llm", "setfit"} for row in rows)
    assert all(sum(row.label) == pytest.approx(1, abs=1e-4) for row in rows)
    assert capsys.readouterr().err.count("Committee of 3") == 1


def test_the_same_labels_in_another_order_and_another_run(inverter: Inverter) -> None:
    rows = make(inverter).generate(12, epoch=1)
    other = make(inverter)
    last = other.producer.chunk(1, 2, 12)
    assert [*other.producer.chunk(1, 0, 12), *other.producer.chunk(1, 1, 12), *last] == rows
    again = make(inverter, {"reuse": False}).generate(12, epoch=1)
    assert again == rows


def test_the_global_generators_neither_matter_nor_move(inverter: Inverter) -> None:
    settings = {"committee": ("encoder", "setfit")}
    torch.manual_seed(1)
    rows = make(inverter, settings).generate(8)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert make(inverter, settings).generate(8) == rows


def test_with_a_committee_no_judge_doubts_the_parents_label(inverter: Inverter) -> None:
    rows = make(inverter, {"intrusion_rate": 0.5}).generate(24)
    assert not any(row.judges for row in rows)
    assert {name for row in rows for name in row.events} <= {"collapse", "degenerate", "leak"}
    judged = make(inverter, {"label_source": "blend"}).generate(4)
    assert all(row.judges for row in judged)


def test_with_a_committee_degenerate_sentences_are_still_regenerated(
    inverter: Inverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixup = make(inverter, {"max_redraws": 1})
    monkeypatch.setattr(mixup.producer, "invert", lambda mixes, *_, **__: ["a a a a"] * len(mixes))
    rows = mixup.generate(3)
    assert [row.mitigation for row in rows] == ["parent"] * 3
    assert all("degenerate" in row.events for row in rows)
    for row in rows:
        assert row.label == tuple(float(LABELS[row.parents[0]] == at) for at in range(3))


def test_nobody_votes_on_the_parents_labels(inverter: Inverter) -> None:
    assert not any(row.votes for row in make(inverter, {"label_source": "parents"}).generate(4))


@pytest.mark.parametrize(
    "labels", [[["a"], ["b"], ["a", "b"]] * 8, [float(row % 5) / 2 for row in range(24)]]
)
def test_other_tasks_leave_out_default_members_that_do_not_know_them(
    inverter: Inverter, labels: list[Any]
) -> None:
    config = MixupConfig(**{k: v for k, v in FAST.items() if k != "committee"})
    mixup = InversedMixup(inverter, TEXTS, labels, config=config)
    assert set(mixup.generate(4)[0].votes) == {"encoder", "llm"}


def test_unlabelled_texts_stand_among_the_rows(inverter: Inverter) -> None:
    mixup = make(inverter, unlabeled_texts=[*MORE, TEXTS[3]])
    assert mixup.unlabeled_texts == MORE
    taken = [row.text for row in mixup.generate(10) if row.method == UNLABELED]
    assert sorted(taken) == sorted(MORE)
    assert mixup._settings()["unlabeled_texts"] != make(inverter)._settings().get("unlabeled_texts")


@pytest.mark.parametrize("source", ["parents", "blend"])
def test_unlabelled_texts_need_a_committee(inverter: Inverter, source: str) -> None:
    with pytest.raises(errors.InvalidInput, match="`unlabeled_texts` needs `label_source`"):
        make(inverter, {"label_source": source}, unlabeled_texts=MORE)
    with pytest.raises(errors.InvalidInput, match=r"needs `label_source` = 'committee'"):
        InversedMixup.from_pretrained("not/there", label_source=source, unlabeled_texts=MORE)


@pytest.mark.parametrize("labels", [[["a"], ["b"], ["a", "b"]] * 8, [0.5 * at for at in range(24)]])
def test_unlabelled_texts_are_refused_where_no_committee_is_chosen(
    inverter: Inverter, labels: list[Any]
) -> None:
    with pytest.raises(
        errors.InvalidInput, match="Set `label_source: committee`, or leave the texts"
    ):
        InversedMixup(
            inverter, TEXTS, labels, unlabeled_texts=MORE, config=MixupConfig(max_new_tokens=4)
        )


def test_evaluation_texts_found_by_attach_leave_the_unlabelled_ones(
    inverter: Inverter, tmp_path: Path
) -> None:
    mixup = make(inverter, unlabeled_texts=MORE)
    tokenizer = word_tokenizer(classifier=True)
    trainer = Trainer(
        make_classifier(),
        make_arguments(tmp_path, remove_unused_columns=False),
        train_dataset=make_dataset(TEXTS, LABELS, text=TEXTS),
        eval_dataset=make_dataset(MORE[:1], [0], text=MORE[:1]),
        processing_class=tokenizer,
    )
    mixup.attach(trainer, text_column="text")
    assert mixup.unlabeled_texts == MORE[1:]
    assert MORE[0] not in {row.text for row in mixup.generate(12)}


def test_who_labels_is_a_setting_beside_texts_and_without(inverter: Inverter) -> None:
    for rows in ([], [TEXTS, LABELS]):
        mixup = InversedMixup(inverter, *rows, label_source="blend")
        assert mixup.config.label_source == "blend"
    with pytest.raises(errors.InvalidInput, match="`label_source` must be one of"):
        InversedMixup(inverter, TEXTS, LABELS, label_source="comittee")
    for texts in (TEXTS, None):
        with pytest.raises(errors.InvalidType, match="'committee'. Who labels .* `label_source`"):
            InversedMixup(inverter, texts, "committee")


def test_descriptions_reach_the_committee_and_the_checkpoint(inverter: Inverter) -> None:
    mixup = InversedMixup(
        inverter,
        TEXTS,
        LABELS,
        label_names=["BookFlight", "other", "rest"],
        label_descriptions={"rest": "all the rest"},
        config=MixupConfig(**FAST),
    )
    assert mixup.label_descriptions == ["book flight", "other", "all the rest"]
    assert mixup._settings()["label_descriptions"] == mixup.label_descriptions
    json.dumps(mixup._settings())


@pytest.mark.parametrize(("unlabeled", "parents"), [([], 0.0), (MORE, 0.0), (MORE, 0.5)])
def test_a_resumed_run_draws_the_same_labels(
    inverter: Inverter, tmp_path: Path, unlabeled: list[str], parents: float
) -> None:
    def train(folder: str, resume: str | None = None, **settings: Any) -> list[Any]:
        mixup = make(inverter, {"unlabeled_parents": parents}, unlabeled_texts=unlabeled)
        trainer = Trainer(
            make_classifier(dropout=0.0),
            make_arguments(tmp_path / folder, num_train_epochs=2, **settings),
            train_dataset=make_dataset(TEXTS, LABELS, text=TEXTS),
            processing_class=word_tokenizer(classifier=True),
        )
        mixup.attach(trainer, text_column="text")
        trainer.train(resume_from_checkpoint=resume)
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    whole = train("whole", save_strategy="steps", save_steps=8)
    checkpoint = str(tmp_path / "whole" / "checkpoint-8")
    assert train("resumed", checkpoint)[8:] == whole[8:]


@pytest.mark.parametrize("settings", [{"background": True}, {"source": "task", "refine_steps": 1}])
def test_sentences_made_elsewhere_are_labelled_by_the_same_committee(
    inverter: Inverter, tmp_path: Path, settings: dict[str, Any]
) -> None:
    mixup = make(inverter, settings | {"warmup_epochs": 0}, unlabeled_texts=MORE)
    trainer = Trainer(
        make_classifier(dropout=0.0),
        make_arguments(tmp_path, num_train_epochs=2),
        train_dataset=make_dataset(TEXTS, LABELS, text=TEXTS),
        processing_class=word_tokenizer(classifier=True),
    )
    mixup.attach(trainer, text_column="text")
    trainer.train()
    (callback,) = [
        each for each in trainer.callback_handler.callbacks if hasattr(each, "used_rows")
    ]
    rows = [row for row, _ in callback.used_rows()]
    labels = make(inverter, unlabeled_texts=MORE)._labelling.labels
    found = labels.label([row.text or "." for row in rows]).labels
    assert {row.method for row in rows} == {"smotext", UNLABELED}
    for row, expected in zip(rows, found.tolist(), strict=True):
        if row.mitigation != "parent":
            assert row.label == pytest.approx(expected, abs=1e-4)


def test_unlabelled_texts_among_the_parents(inverter: Inverter, tmp_path: Path) -> None:
    shares = {"unlabeled_share": 0.25, "unlabeled_parents": 0.5}
    mixup = make(inverter, shares, unlabeled_texts=MORE, eval_texts=MORE[:1])
    rows = mixup.generate(32)
    assert sum(row.method == UNLABELED for row in rows) == 8
    mixes = [row for row in rows if row.method != UNLABELED]
    used = {parent for row in mixes for parent in row.unlabeled_parents}
    assert used == set(range(len(MORE) - 1))  # not the evaluation text
    assert {len(row.unlabeled_parents) for row in mixes} == {0, 1, 2}
    assert all(len(row.label) == 3 and set(row.votes) == {"encoder"} for row in rows)
    again = make(inverter, shares | {"reuse": False}, unlabeled_texts=MORE, eval_texts=MORE[:1])
    assert again.generate(32) == rows
    file = tmp_path / "rows.jsonl"
    names = mixup.label_names
    write_rows(file, [mixed_json(row, mixup.texts, names) for row in rows])
    assert [row.unlabeled_parents for row in read_mixed(file, mixup.texts, names)] == [
        row.unlabeled_parents for row in rows
    ]
    assert list(open_rows(save_rows(tmp_path, rows))) == rows


def test_unlabelled_parents_need_unlabelled_texts_and_a_committee(inverter: Inverter) -> None:
    for build in (make, lambda _, each: InversedMixup.from_pretrained("not/there", **each)):
        with pytest.raises(errors.InvalidInput, match="`unlabeled_parents` = 0.5 needs unlab"):
            build(inverter, {"unlabeled_parents": 0.5})
    with pytest.raises(errors.InvalidInput, match="`unlabeled_texts` needs `label_source`"):
        make(
            inverter,
            {"unlabeled_parents": 0.5, "label_source": "parents"},
            unlabeled_texts=MORE,
        )
    with pytest.raises(errors.InvalidInput, match="number of unlabelled texts"):
        make(inverter, {"unlabeled_parents": 0.5}, unlabeled_texts=MORE[:1])


def test_the_committee_of_a_plugin_predicts_any_text(
    inverter: Inverter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixup = make(inverter, unlabeled_texts=MORE)
    trainer = Trainer(
        make_classifier(),
        make_arguments(tmp_path, num_train_epochs=1),
        train_dataset=make_dataset(TEXTS, LABELS, text=TEXTS),
        processing_class=word_tokenizer(classifier=True),
    )
    mixup.attach(trainer, text_column="text")
    trainer.train()
    committee = mixup.committee
    assert committee is not None
    assert committee is mixup._labelling.labels  # that of the run
    found = committee.predict_proba([*MORE, TEXTS[0]])
    assert found.shape == (6, 3)
    assert found.sum(1) == pytest.approx(1, abs=1e-5)
    again = make(inverter, unlabeled_texts=MORE).committee
    assert (again.predict_proba(MORE) == found[:5]).all()
    rows = mixup.generate(8)
    assert committee.predict_proba([row.text for row in rows]) == pytest.approx(
        torch.tensor([row.label for row in rows]).numpy(), abs=1e-5
    )


def test_a_plugin_without_a_committee_has_none(inverter: Inverter) -> None:
    assert make(inverter, {"label_source": "parents"}).committee is None
    with pytest.raises(errors.InvalidState, match="no training rows yet"):
        InversedMixup(inverter, config=MixupConfig(**FAST)).committee  # noqa: B018
    with pytest.raises(errors.InvalidInput, match="where no Trainer has a model to copy"):
        make(inverter, {"committee": ("encoder", "model")}).committee  # noqa: B018


def test_a_committee_that_knows_nothing_is_reported(
    inverter: Inverter, caplog: pytest.LogCaptureFixture
) -> None:
    labels = [[0, 1, 1, 0][row % 4] for row in range(24)]
    mixup = InversedMixup(inverter, ["same words"] * 24, labels, config=MixupConfig(**FAST))
    with caplog.at_level(logging.WARNING, "mixup_hf"):
        assert mixup.committee.skill <= 0
    assert "no better than chance on held-out rows of the 24 training texts" in caplog.text


def test_a_class_of_two_rows_beside_twenty(inverter: Inverter, tmp_path: Path) -> None:
    texts, labels = [*TEXTS[:20], "new big price bank", "bank tax price"], [0] * 20 + [1] * 2
    settings = {"committee": ("encoder", "llm", "setfit"), "sampling_strategy": "auto"}
    mixup = InversedMixup(
        inverter, texts, labels, config=MixupConfig(**(FAST | settings), rows_per_refill=40)
    )
    trainer = Trainer(
        make_classifier(2),
        make_arguments(tmp_path, num_train_epochs=2),
        train_dataset=make_dataset(texts, labels, text=texts),
        processing_class=word_tokenizer(classifier=True),
    )
    mixup.attach(trainer, text_column="text")
    trainer.train()
    rows = mixup.generate(36)
    assert {row.parents for row in rows} <= {(20, 21), (21, 20)}  # 18 of them make both equal
    assert all(sum(row.label) == pytest.approx(1, abs=1e-4) for row in rows)
    assert all(set(row.votes) == {"encoder", "llm", "setfit"} for row in rows)
    assert min(min(vote) for row in rows for vote in row.votes.values()) > 0
    assert torch.tensor([row.label for row in rows]).isfinite().all()
    assert mixup.committee.names == ("0", "1")


def test_several_labels_a_row_with_unlabelled_texts(inverter: Inverter) -> None:
    labels = [["a"], ["b"], ["a", "b"], []] * 6
    shares = {"unlabeled_share": 0.25, "unlabeled_parents": 0.5}
    mixup = InversedMixup(
        inverter, TEXTS, labels, unlabeled_texts=MORE, config=MixupConfig(**(FAST | shares))
    )
    rows = mixup.generate(16)
    assert any(row.method == UNLABELED for row in rows)
    assert any(row.unlabeled_parents for row in rows)
    assert all(0 < share < 1 for row in rows for share in row.label)
    assert mixup.committee.predict_proba(MORE).shape == (5, 2)


def test_a_committee_is_fitted_anew_for_another_kind_of_label() -> None:
    inverter, made = make_inverter(), []
    for labels in ([0, 1, 2] * 4, [["a"], ["b"], ["c"]] * 4):
        names = {"num_labels": 3} if labels[0] == 0 else {"label_names": ["a", "b", "c"]}
        settings = {"label_source": "committee", "committee": ("encoder", "knn")}
        config = MixupConfig(max_new_tokens=4, **settings)
        mixup = InversedMixup(inverter, make_rows(12)[0], labels, config=config, **names)
        made.append(mixup.committee.predict_proba(["the new film"]))
    assert made[0].sum() == pytest.approx(1, abs=1e-4)
    assert made[1].sum() != pytest.approx(1, abs=1e-4)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return noting_fits(monkeypatch)


def rerun(inverter: Inverter, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    monkeypatch.setattr(committee, "_LATEST", WeakKeyDictionary())
    return make(inverter, settings).generate(8)


def test_a_second_run_of_a_script_fits_no_committee(
    fits: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inverter = make_inverter()
    rows = rerun(inverter, monkeypatch)
    assert fits == ["encoder"]
    assert "fitting a committee" in capsys.readouterr().err
    assert rerun(inverter, monkeypatch) == rows
    assert fits == ["encoder"]
    shown = capsys.readouterr().err
    assert "fitting a committee" not in shown
    assert "Committee of 1" in shown


@pytest.mark.parametrize(
    "changed", [{"seed": 5}, {"reuse": False}, {"background": True}], ids=lambda each: str(each)
)
def test_with_other_settings_it_does(
    changed: dict[str, Any], fits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inverter = make_inverter()
    rerun(inverter, monkeypatch)
    rerun(inverter, monkeypatch, **changed)
    assert fits == ["encoder", "encoder"]


def test_and_with_another_aligner(fits: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    inverter = make_inverter()
    for inverter.fingerprint in ("these weights", "others"):
        rerun(inverter, monkeypatch)
    assert fits == ["encoder", "encoder"]
