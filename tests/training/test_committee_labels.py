"""A committee's labels through the plugin: gate, unlabelled texts, settings, resume."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_classifier, make_dataset, make_inverter, make_rows, word_tokenizer
from trainer_runs import make_arguments
from transformers import Trainer

from mixup_hf import InversedMixup, Inverter, MixupConfig, errors
from mixup_hf.generation.unlabeled import UNLABELED

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
    monkeypatch.setattr(mixup.producer, "invert", lambda mixes, seed: ["a a a a"] * len(mixes))
    rows = mixup.generate(3)
    assert [row.mitigation for row in rows] == ["parent"] * 3
    assert [row.events for row in rows] == [("degenerate",)] * 3
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


@pytest.mark.parametrize("unlabeled", [[], MORE])
def test_a_resumed_run_draws_the_same_labels(
    inverter: Inverter, tmp_path: Path, unlabeled: list[str]
) -> None:
    def train(folder: str, resume: str | None = None, **settings: Any) -> list[Any]:
        mixup = make(inverter, unlabeled_texts=unlabeled)
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
