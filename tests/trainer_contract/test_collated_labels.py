"""Real rows keep the labels of their columns, whatever a script's own collator does; or it is said.

Generated rows are labelled by the plugin. A collator that maps labels or moves rows, a second label
column, or labels changed in mid-run would train both kinds on different labels without an error.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import CLASSES, TEXTS, TOKENIZER, make_mixup, plain_trainer, tokenized
from datasets import Dataset
from tiny import WORDS, make_classifier, make_rows
from trainer_runs import LABELS, record
from transformers import (
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    default_data_collator,
)

from mixup_hf.errors import MixupError

PAD = DataCollatorWithPadding(TOKENIZER)
INPUTS = ("input_ids", "attention_mask")
NAMES = ["ham", "spam"]
SPAM = [each % 2 for each in CLASSES]
Features = list[dict[str, Any]]


def with_columns(**columns: list[Any]) -> Dataset:
    encoded = {key: TOKENIZER(TEXTS)[key] for key in INPUTS}
    return Dataset.from_dict({"text": TEXTS, **columns, **encoded})


def collated(label_of: Callable[[dict[str, Any]], Any]) -> Callable[[Features], Any]:
    """A script's own collator, which makes labels from features."""

    def collate(features: Features) -> Any:
        batch = PAD([{key: row[key] for key in INPUTS} for row in features])
        batch["labels"] = torch.tensor([label_of(row) for row in features])
        return batch

    return collate


def named_spam(row: dict[str, Any]) -> int:
    return int(row["label"] == "spam")


def in_another_order(row: dict[str, Any]) -> int:
    return ["spam", "ham"].index(row["label"])


def attached(folder: Path, *, columns: dict[str, Any] | None = None, **settings: Any) -> Trainer:
    arguments = {"max_steps": 1, "remove_unused_columns": False}
    trainer = plain_trainer(folder, arguments=arguments, **settings)
    make_mixup(leaks="off").attach(trainer, **(columns or {}))
    return trainer


def test_a_collator_that_reads_class_names_sees_them(tmp_path: Path) -> None:
    data = with_columns(label=[NAMES[each] for each in SPAM])
    trainer = attached(
        tmp_path,
        model=make_classifier(2),
        train_dataset=data,
        eval_dataset=data.select(range(6)),
        data_collator=collated(named_spam),
        compute_metrics=lambda given: {"labels": given.label_ids.tolist()},
    )
    batches = record(trainer.model)
    trainer.train()
    soft = batches.training[0]["soft_labels"]
    assert soft[:4].argmax(1).tolist() == SPAM[:4]
    assert trainer.evaluate()["eval_labels"] == SPAM[:6]


def test_one_of_transformers_is_given_indices(tmp_path: Path) -> None:
    data = with_columns(label=[NAMES[each] for each in SPAM])
    trainer = plain_trainer(
        tmp_path,
        model=make_classifier(2),
        train_dataset=data,
        data_collator=PAD,
        arguments={"max_steps": 1},
    )
    make_mixup(pairing="same_class").attach(trainer)
    batches = record(trainer.model)
    trainer.train()
    assert batches.training[0]["soft_labels"][:4].argmax(1).tolist() == SPAM[:4]


def test_a_collator_with_classes_in_another_order_is_refused(tmp_path: Path) -> None:
    trainer = attached(
        tmp_path,
        model=make_classifier(2),
        train_dataset=with_columns(label=[NAMES[each] for each in SPAM]),
        data_collator=collated(in_another_order),
    )
    with pytest.raises(MixupError, match=r"'ham' in the column 'label'.*the label 1 \('spam'\)"):
        trainer.train()


def test_unless_rows_are_not_to_be_checked(tmp_path: Path) -> None:
    trainer = attached(
        tmp_path,
        model=make_classifier(2),
        train_dataset=with_columns(label=[NAMES[each] for each in SPAM]),
        data_collator=collated(in_another_order),
        columns={"check_rows": False},
    )
    assert trainer.train().global_step == 1


def test_a_collator_that_scales_numbers_is_refused(tmp_path: Path) -> None:
    scores = [0.5 + each for each in CLASSES]
    trainer = attached(
        tmp_path,
        model=make_classifier(1),
        train_dataset=with_columns(score=scores),
        data_collator=collated(lambda row: row["score"] / 5),
        columns={"label_column": "score"},
    )
    with pytest.raises(MixupError, match=r"0.5 in the column 'score'.*the label \[0.1"):
        trainer.train()


def with_tags(folder: Path, names: list[str] | None) -> Trainer:
    """Several labels a row, in the collator's own order; the model names them, or does not."""
    tags = ["sport", "crime", "art"]
    model = make_classifier(3)
    model.config.problem_type = "multi_label_classification"
    if names is not None:
        model.config.id2label = dict(enumerate(names))
    return attached(
        folder,
        model=model,
        train_dataset=with_columns(tags=[[tags[each]] for each in CLASSES]),
        data_collator=collated(lambda row: [float(tag in row["tags"]) for tag in tags]),
        columns={"label_column": "tags"},
    )


def test_so_is_one_with_several_labels_in_another_order(tmp_path: Path) -> None:
    with pytest.raises(MixupError, match=r"\['sport'\] in the column 'tags'"):
        with_tags(tmp_path, None).train()


def test_and_taken_once_the_order_is_given(tmp_path: Path) -> None:
    trainer = with_tags(tmp_path, ["sport", "crime", "art"])
    batches = record(trainer.model)
    trainer.train()
    assert batches.training[0]["soft_labels"][:4].argmax(1).tolist() == CLASSES[:4]


def by_length(features: Features) -> Any:
    rows = sorted(features, key=lambda row: -len(row["input_ids"]))
    return PAD([{key: row[key] for key in (*INPUTS, "label")} for row in rows])


def masking(features: Features) -> Any:
    """Replaces a token, so that no row has the tokens of its feature."""
    batch = PAD([{key: row[key] for key in (*INPUTS, "label")} for row in features])
    batch["input_ids"][:, 1] = TOKENIZER.unk_token_id
    return batch


@pytest.mark.parametrize("alike", [True, False])
def test_a_collator_that_moves_rows_is_refused(alike: bool, tmp_path: Path) -> None:
    """Also where all labels of the batch are the same, so that only tokens tell."""
    texts, labels = make_rows(12, LABELS)
    order = sorted(range(12), key=lambda at: labels[at]) if alike else range(12)
    data = tokenized([texts[at] for at in order], [labels[at] for at in order])
    trainer = attached(tmp_path, train_dataset=data, data_collator=by_length)
    with pytest.raises(MixupError, match="puts rows into another order.*group_by_length"):
        trainer.train()


def test_one_that_changes_tokens_is_not_taken_for_it(tmp_path: Path) -> None:
    trainer = attached(tmp_path, train_dataset=tokenized(), data_collator=masking)
    assert trainer.train().global_step == 1


def dropping(features: Features) -> Any:
    """Drops all tokens but one, so that rows have tokens of others."""
    rows = [
        {"input_ids": [2, 6, 3], "attention_mask": [1] * 3, "label": row["label"]}
        for row in features
    ]
    return PAD(rows)


def test_nor_is_one_that_drops_tokens(tmp_path: Path) -> None:
    texts = [WORDS[0], WORDS[1], f"{WORDS[0]} {WORDS[1]}"] * 4
    data = tokenized(texts, CLASSES)
    trainer = attached(tmp_path, train_dataset=data, data_collator=dropping)
    assert trainer.train().global_step == 1


def test_labels_that_a_transform_makes_are_those_that_count(tmp_path: Path) -> None:
    stored = Dataset.from_dict({"text": TEXTS, "label": [each + 1 for each in CLASSES]})

    def transform(rows: dict[str, list[Any]]) -> dict[str, Any]:
        return {**TOKENIZER(rows["text"]), "labels": [each - 1 for each in rows["label"]]}

    trainer = attached(
        tmp_path,
        train_dataset=stored.with_transform(transform),
        columns={"texts": TEXTS, "labels": CLASSES},
    )
    assert trainer.train().global_step == 1


def test_a_column_of_other_strings_is_no_text_column(tmp_path: Path) -> None:
    rows = [
        {"id": f"doc-{at}", **TOKENIZER(text), "label": CLASSES[at]}
        for at, text in enumerate(TEXTS)
    ]
    trainer = plain_trainer(tmp_path, train_dataset=rows, arguments={"max_steps": 1})
    make_mixup().attach(trainer, texts=TEXTS, labels=CLASSES)
    assert trainer.train().global_step == 1


def test_names_in_a_second_label_column_may_be_spelled_otherwise(tmp_path: Path) -> None:
    model = make_classifier(LABELS)
    model.config.id2label = dict(enumerate(["sport", "crime", "art"]))
    shown = [["S", "C", "A"][each] for each in CLASSES]

    def collate(features: Features) -> Any:
        return PAD([{key: row[key] for key in (*INPUTS, "labels")} for row in features])

    trainer = attached(
        tmp_path,
        model=model,
        train_dataset=with_columns(label=shown, labels=CLASSES),
        data_collator=collate,
        columns={"text_column": "text", "label_column": "labels"},
    )
    assert trainer.train().global_step == 1


def test_two_label_columns_must_say_the_same(tmp_path: Path) -> None:
    other = [(each + 1) % LABELS for each in CLASSES]
    trainer = plain_trainer(tmp_path, train_dataset=tokenized().add_column("labels", other))
    with pytest.raises(MixupError, match=r"the label 0 .*in the column 'label' .*it has 1"):
        make_mixup().attach(trainer, label_column="labels")
    same = tokenized().add_column("labels", CLASSES)
    trainer = plain_trainer(tmp_path, train_dataset=same, arguments={"max_steps": 1})
    make_mixup().attach(trainer, label_column="labels")
    assert trainer.train().global_step == 1


class Relabelled(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """A torch data set whose labels can change."""

    def __init__(self) -> None:
        self.labels = list(CLASSES)

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, at: int) -> dict[str, Any]:
        return {**TOKENIZER(TEXTS[at]), "label": self.labels[at]}


def test_labels_changed_between_epochs_are_noticed(tmp_path: Path) -> None:
    data = Relabelled()

    class Changes(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.epoch >= 1:
                data.labels = [(each + 1) % LABELS for each in CLASSES]

    trainer = plain_trainer(
        tmp_path, train_dataset=data, callbacks=[Changes()], arguments={"num_train_epochs": 2}
    )
    make_mixup().attach(trainer, texts=TEXTS, labels=CLASSES)
    with pytest.raises(MixupError, match="in the labels given to InversedMixup it has"):
        trainer.train()
    assert trainer.state.global_step == 3


def test_one_corrected_label_among_many_is_noticed(tmp_path: Path) -> None:
    texts, labels = make_rows(300, LABELS)
    trainer = plain_trainer(tmp_path, train_dataset=tokenized(texts, labels))
    make_mixup().attach(trainer)
    corrected = [(each + (at == 123)) % LABELS for at, each in enumerate(labels)]
    trainer.train_dataset = tokenized(texts, corrected)
    with pytest.raises(MixupError, match="Row 123 of train_dataset"):
        trainer.train()


def urls() -> list[str]:
    return [" ".join(random.Random(at).choices(WORDS, k=6)) for at in range(len(TEXTS))]


def test_a_text_column_that_is_not_what_was_tokenized_is_refused(tmp_path: Path) -> None:
    data = with_columns(url=urls(), label=CLASSES).remove_columns("text")
    with pytest.raises(MixupError, match="column 'url' is not the text that the model reads"):
        attached(tmp_path, train_dataset=data, data_collator=default_data_collator)


def test_the_text_column_of_a_torch_data_set_is_found(tmp_path: Path) -> None:
    rows = [{"sentence": text, "label": label} for text, label in zip(TEXTS, CLASSES, strict=True)]

    def tokenize(features: Features) -> Any:
        texts = [row["sentence"] for row in features]
        batch = TOKENIZER(texts, padding=True, return_tensors="pt")
        batch["labels"] = torch.tensor([row["label"] for row in features])
        return batch

    trainer = attached(tmp_path, train_dataset=rows, data_collator=tokenize)
    batches = record(trainer.model)
    trainer.train()
    made = batches.mixed_texts()
    assert len(set(made)) > 1


def test_rows_without_the_tokens_at_their_ends_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tokenized(add_special_tokens=False)
    make_mixup().attach(plain_trainer(tmp_path, train_dataset=data))
    assert "All training rows start with '', generated rows with '[CLS]'" in caplog.text
    assert "All training rows end with '', generated rows with '[SEP]'" in caplog.text
