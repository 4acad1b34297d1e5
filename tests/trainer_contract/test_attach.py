"""`attach`: one line after an unchanged `Trainer(...)` reads everything off it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import CLASSES, TEXTS, TOKENIZER, make_mixup, plain_trainer, tokenized
from datasets import ClassLabel, Dataset
from tiny import make_classifier, make_inverter
from trainer_runs import LABELS, assert_close, record, weights
from transformers import EarlyStoppingCallback, TrainerCallback

from mixup_hf import InversedMixup, MixupCallback, MixupCollator, MixupConfig, OfflineMixup
from mixup_hf.data.row_files import mixed_json
from mixup_hf.errors import MixupError

NAMES = ["world", "sport", "music"]


def test_one_line_makes_a_trainer_mix(tmp_path: Path) -> None:
    trainer = plain_trainer(
        tmp_path, eval_dataset=tokenized(["a new film", "the old bank"], [0, 1])
    )
    collator, batches = trainer.data_collator, record(trainer.model)
    mixup = make_mixup()
    assert mixup.attach(trainer, text_column="text") is mixup
    trainer.train()
    assert (mixup.texts, mixup.num_labels, mixup.seed) == (TEXTS, LABELS, trainer.args.seed)
    assert mixup.eval_texts == ["a new film", "the old bank"]
    assert isinstance(trainer.data_collator, MixupCollator)
    assert trainer.data_collator.base_collator is collator
    assert all((batch["mixup_rows"] >= 0).any() for batch in batches.training)
    assert "eval_loss" in trainer.evaluate()
    assert all("mixup_rows" not in batch for batch in batches.evaluation)


def test_from_pretrained_needs_no_rows(saved_aligner: Callable[..., Path], tmp_path: Path) -> None:
    mixup = InversedMixup.from_pretrained(
        str(saved_aligner()), device="cpu", max_new_tokens=4, chunk_size=4, mix_ratio=0.25
    )
    with pytest.raises(MixupError, match=r"no training rows yet.*attach\(trainer\)"):
        mixup.generate(3)
    with pytest.raises(MixupError, match="no training rows yet"):
        mixup.trainer_kwargs(TOKENIZER)
    trainer = plain_trainer(tmp_path)
    mixup.attach(trainer).generate(3)
    assert trainer.train().global_step == 3


def test_attached_and_by_keywords_it_trains_the_same_weights(tmp_path: Path) -> None:
    attached = plain_trainer(tmp_path / "attached")
    make_mixup(seed=3).attach(attached)
    attached.train()
    mixup = make_mixup(TEXTS, CLASSES, seed=3)
    keywords = plain_trainer(tmp_path / "keywords", **mixup.trainer_kwargs(TOKENIZER))
    keywords.train()
    assert_close(weights(attached.model), weights(keywords.model), 1e-6)


def test_the_callbacks_there_are_stay(tmp_path: Path) -> None:
    trainer = plain_trainer(
        tmp_path,
        callbacks=[EarlyStoppingCallback(1)],
        eval_dataset=tokenized(["a new film", "the old bank"], [0, 1]),
        arguments={
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "load_best_model_at_end": True,
            "metric_for_best_model": "loss",
        },
    )
    make_mixup().attach(trainer)
    kinds = [type(each) for each in trainer.callback_handler.callbacks]
    assert EarlyStoppingCallback in kinds
    assert kinds.count(MixupCallback) == 1
    trainer.train()


def test_trackers_get_the_figures_of_mixing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tracker(TrainerCallback):
        """Copies the logs, as a reporting callback sends them away."""

        def __init__(self) -> None:
            self.seen: list[dict[str, float]] = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
            self.seen.append(dict(logs))

    # The Trainer builds the tracker, as it does for `report_to`; the script passes another.
    monkeypatch.setattr(
        "transformers.trainer.get_reporting_integration_callbacks", lambda report_to: [Tracker]
    )
    trainer = plain_trainer(tmp_path, callbacks=[Tracker()], arguments={"logging_steps": 1})
    make_mixup().attach(trainer)
    trainer.train()
    trackers = [each for each in trainer.callback_handler.callbacks if isinstance(each, Tracker)]
    assert len(trackers) == 2
    history = [logs for logs in trainer.state.log_history if "loss" in logs]
    for tracker in trackers:
        steps = [logs for logs in tracker.seen if "loss" in logs]
        assert len(steps) == 3
        assert [logs["mixup_hf/rows_made"] for logs in steps] == [
            logs["mixup_hf/rows_made"] for logs in history
        ]


def test_the_callbacks_of_the_script_go_through_trainer_kwargs(tmp_path: Path) -> None:
    class Own(TrainerCallback):
        pass

    own = Own()
    kwargs = make_mixup(TEXTS, CLASSES).trainer_kwargs(TOKENIZER, callbacks=[own])
    assert kwargs["callbacks"][0] is own
    assert isinstance(kwargs["callbacks"][1], MixupCallback)
    plain_trainer(tmp_path, **kwargs).train()


def test_attaching_twice_is_refused(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    mixup = make_mixup().attach(trainer)
    with pytest.raises(MixupError, match="mixes already"):
        mixup.attach(trainer)
    with pytest.raises(MixupError, match="mixes already"):
        make_mixup().attach(trainer)


def test_one_plugin_may_be_attached_to_several_trainers_of_the_same_rows(tmp_path: Path) -> None:
    mixup = make_mixup().attach(plain_trainer(tmp_path / "one"))
    second = plain_trainer(tmp_path / "two")
    mixup.attach(second)
    assert second.train().global_step == 3
    other = plain_trainer(tmp_path / "three", train_dataset=tokenized(TEXTS[:6], CLASSES[:6]))
    with pytest.raises(MixupError, match="6 rows, but 12 rows are mixed"):
        mixup.attach(other)


def test_the_one_column_of_strings_is_found_and_several_are_not_guessed(tmp_path: Path) -> None:
    renamed = tokenized().rename_column("text", "sentence")
    mixup = make_mixup().attach(plain_trainer(tmp_path / "one", train_dataset=renamed))
    assert mixup.texts == TEXTS
    two = renamed.add_column("title", TEXTS)
    with pytest.raises(MixupError, match=r"several columns of strings: \['sentence', 'title'\]"):
        make_mixup().attach(plain_trainer(tmp_path / "two", train_dataset=two))
    chosen = make_mixup().attach(
        plain_trainer(tmp_path / "three", train_dataset=two), text_column="sentence"
    )
    assert chosen.texts == TEXTS
    with pytest.raises(MixupError, match="`text_column` must be one of the columns"):
        make_mixup().attach(plain_trainer(tmp_path / "four", train_dataset=two), "nowhere")


@pytest.mark.parametrize("kind", ["datasets", "dicts"])
def test_without_text_token_ids_are_decoded_and_that_is_said(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data: Any = tokenized().remove_columns("text")
    if kind == "dicts":
        data = [{key: torch.tensor(value) for key, value in row.items()} for row in data]
    trainer = plain_trainer(tmp_path, train_dataset=data)
    mixup = make_mixup().attach(trainer)
    assert mixup.texts == TEXTS
    assert "decoded from token ids" in caplog.text
    assert trainer.train().global_step == 3


def test_texts_may_be_passed_for_a_data_set_of_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data: Any = [dict(row) for row in tokenized().remove_columns("text")]
    trainer = plain_trainer(tmp_path, train_dataset=data)
    assert make_mixup().attach(trainer, texts=TEXTS).texts == TEXTS
    assert "decoded" not in caplog.text
    trainer.train()


def test_class_names_come_from_the_features_and_the_model(tmp_path: Path) -> None:
    data = tokenized().cast_column("label", ClassLabel(names=NAMES))
    mixup = make_mixup().attach(plain_trainer(tmp_path / "features", train_dataset=data))
    assert mixup.label_names == NAMES
    model = make_classifier(LABELS)
    model.config.id2label = dict(enumerate(NAMES))
    named = tokenized(labels=[NAMES[label] for label in CLASSES])
    mixup = make_mixup().attach(plain_trainer(tmp_path / "m", train_dataset=named, model=model))
    assert mixup.label_names == NAMES  # and not sorted
    assert mixup.targets.argmax(1).tolist() == CLASSES


@pytest.mark.parametrize(
    ("labels", "problem", "classes"),
    [
        ([[1.0, 0.0, float(at % 2)] for at in range(12)], "multi_label_classification", 3),
        ([at / 4 for at in range(12)], "regression", 1),
    ],
)
def test_other_tasks_are_read_too(labels: Any, problem: str, classes: int, tmp_path: Path) -> None:
    model = make_classifier(classes)
    model.config.problem_type = problem
    trainer = plain_trainer(tmp_path, train_dataset=tokenized(labels=labels), model=model)
    mixup = make_mixup().attach(trainer)
    assert mixup.problem_type == problem
    assert trainer.train().global_step == 3


def test_pairs_are_read_from_two_columns(tmp_path: Path) -> None:
    firsts, seconds = TEXTS, TEXTS[::-1]
    encoded = TOKENIZER(firsts, seconds, truncation=True)
    columns = {"premise": firsts, "hypothesis": seconds, "label": CLASSES, **encoded}
    data = Dataset.from_dict(columns)
    trainer = plain_trainer(tmp_path / "pairs", train_dataset=data)
    batches = record(trainer.model)
    mixup = make_mixup().attach(trainer, "premise", "hypothesis")
    trainer.train()
    mixed = batches.training[0]["mixup_rows"] >= 0
    assert (batches.training[0]["token_type_ids"][mixed] == 1).any(1).all()
    row = mixup.generate(1)[0]
    assert len(row.sides) == 2
    assert not any("\x1e" in side for side in row.sides)
    assert row.text_pair == row.sides[1]
    bare = plain_trainer(tmp_path / "bare", train_dataset=data.select_columns([*encoded, "label"]))
    with pytest.raises(MixupError, match="seem to be pairs"):
        make_mixup().attach(bare)


def test_several_evaluation_sets_are_guarded(tmp_path: Path) -> None:
    sets = {"one": tokenized(["a new film"], [0]), "two": tokenized(["the old bank"], [1])}
    mixup = make_mixup().attach(plain_trainer(tmp_path, eval_dataset=sets))
    assert mixup.eval_texts == ["a new film", "the old bank"]


def test_evaluation_rows_in_the_training_set_can_stop_the_run(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, eval_dataset=tokenized(TEXTS[:2], CLASSES[:2]))
    with pytest.raises(MixupError, match="2 of 12 training texts are evaluation texts too"):
        make_mixup(leaks="fail").attach(trainer)
    bound = make_mixup(TEXTS, CLASSES, leaks="fail")
    with pytest.raises(MixupError, match="2 of 12 training texts are evaluation texts too"):
        bound.attach(trainer)


def test_a_stream_is_refused_with_the_way_out(tmp_path: Path) -> None:
    stream = tokenized().to_iterable_dataset()
    trainer = plain_trainer(tmp_path, train_dataset=stream, arguments={"max_steps": 2})
    with pytest.raises(MixupError, match=r"is a stream.*texts=\[\.\.\.\], labels=\[\.\.\.\]"):
        make_mixup().attach(trainer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_dataset": None}, "no `train_dataset`"),
        ({"processing_class": None}, "processing_class=tokenizer"),
        ({"train_dataset": tokenized().remove_columns("label")}, "no label column"),
        ({"train_dataset": tokenized().select_columns(["label"])}, "neither a column of strings"),
    ],
)
def test_what_cannot_be_read_is_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(MixupError, match=message):
        make_mixup().attach(plain_trainer(tmp_path, **settings))


def test_rows_of_a_file_attach_too(tmp_path: Path) -> None:
    maker = make_mixup(TEXTS, CLASSES)
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps(mixed_json(row, TEXTS, maker.label_names)) for row in maker.generate(6)]
    file.write_text("\n".join(lines) + "\n")
    trainer = plain_trainer(tmp_path / "run")
    batches = record(trainer.model)
    OfflineMixup(file, mix_ratio=0.25).attach(trainer)
    trainer.train()
    assert all((batch["mixup_rows"] >= 0).any() for batch in batches.training)


def test_label_smoothing_works_when_attached_and_is_refused_by_keywords(tmp_path: Path) -> None:
    smoothed = {"label_smoothing_factor": 0.2}
    results = []
    for explicit in (False, True):
        trainer = plain_trainer(tmp_path / str(explicit), arguments=smoothed)
        make_mixup(seed=3).attach(trainer, explicit_loss=explicit)
        trainer.train()
        results.append(weights(trainer.model))
    assert_close(*results, 1e-6)
    kwargs = make_mixup(TEXTS, CLASSES).trainer_kwargs(TOKENIZER)
    with pytest.raises(MixupError, match=r"label_smoothing_factor.*attach.*explicit_loss=True"):
        plain_trainer(tmp_path / "keywords", arguments=smoothed, **kwargs).train()


def test_a_second_call_of_trainer_kwargs_works_with_source_task(tmp_path: Path) -> None:
    mixup = make_mixup(TEXTS, CLASSES, source="task", refine_steps=1)
    mixup.trainer_kwargs(TOKENIZER)
    trainer = plain_trainer(
        tmp_path, arguments={"num_train_epochs": 2}, **mixup.trainer_kwargs(TOKENIZER)
    )
    assert trainer.train().global_step == 6


def test_settings_may_be_keywords_of_the_class() -> None:
    inverter = make_inverter()
    assert InversedMixup(inverter, TEXTS, CLASSES, mix_ratio=0.3).config.mix_ratio == 0.3
    with pytest.raises(MixupError, match="Did you mean 'mix_ratio'"):
        InversedMixup(inverter, TEXTS, CLASSES, ratio=0.3)
    with pytest.raises(MixupError, match="either `config` or single settings"):
        InversedMixup(inverter, TEXTS, CLASSES, config=MixupConfig(), mix_ratio=0.3)


def test_a_data_set_in_the_place_of_texts_is_refused_with_the_way_out() -> None:
    with pytest.raises(MixupError, match=r"texts=dataset\['text'\].*attach\(trainer\)"):
        make_mixup(tokenized())


def test_the_evaluation_rows_of_every_trainer_are_kept_out(tmp_path: Path) -> None:
    """Also where rows have been made, or another Trainer was attached, before they were known."""
    mixup = make_mixup(TEXTS, CLASSES, intrusion="drop")
    made = mixup.generate(4)
    for folder, text in (("a", made[0].text), ("b", made[1].text)):
        rows = tokenized([text], [0])
        mixup.attach(plain_trainer(tmp_path / folder, eval_dataset=rows))
        assert mixup.eval_texts[-1] == text
    again = {row.text for row in mixup.generate(4)}
    assert not again & {made[0].text, made[1].text}
    assert any("leak" in row.events for row in mixup.generate(4))


def test_class_weights_count_where_nothing_is_mixed(tmp_path: Path) -> None:
    heavy = {0: 5.0, 1: 1.0, 2: 1.0}
    losses = []
    for given in (None, heavy):
        trainer = plain_trainer(tmp_path / str(given is None))
        settings = {"class_weights": [*given.values()]} if given else {}
        make_mixup(mix_ratio=0, **settings).attach(trainer)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("column", ["text", "idx"])
def test_by_default_columns_that_the_trainer_drops_are_dropped_before_the_first_step(
    tmp_path: Path, column: str
) -> None:
    rows = [dict(row) | {column: row["text"]} for row in tokenized()]
    trainer = plain_trainer(tmp_path, train_dataset=rows, model=make_classifier(LABELS))
    settings = {"label_source": None, "committee": ("encoder", "knn"), "contrastive_start": 4}
    names = {"texts": TEXTS, "labels": CLASSES}
    make_mixup(**settings, head_start=True, rows_per_refill=4).attach(trainer, **names)
    trainer.train()
    assert trainer.state.global_step == 3
