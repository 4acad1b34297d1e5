"""Whatever collator, columns, labels and data set a script has, the plugin fits in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import make_mixup, plain_trainer
from datasets import Dataset
from tiny import WORDS, make_dataset, make_rows, word_tokenizer
from torch import Tensor
from trainer_runs import (
    LABELS,
    Run,
    assert_identical,
    expected_rows,
    make_run,
    record,
    sharp_classifier,
    step_by_hand,
    tokens,
    weights,
)
from transformers import DataCollatorWithPadding, default_data_collator

ROWS = 6


def rows_with(**columns: Any) -> Dataset:
    return make_dataset(*make_rows(ROWS, LABELS), **columns)


class OwnCollator:
    """A user's: pads to multiples of 16 and adds a key that says how many rows it got."""

    def __init__(self) -> None:
        self.pad = DataCollatorWithPadding(word_tokenizer(classifier=True), pad_to_multiple_of=16)
        self.seen: list[list[dict[str, Any]]] = []

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        self.seen.append(features)
        batch = self.pad([{k: row[k] for k in row if k != "idx"} for row in features])
        batch["position_ids"] = torch.arange(batch["input_ids"].shape[1]).expand(len(features), -1)
        return batch


def assert_step_by_hand(run: Run) -> None:
    """One optimiser step over all recorded batches is the one computed by hand."""
    rows = [row for batch in run.batches.training for row in expected_rows(run, batch)]
    assert any(row.target.max() < 1 for row in rows)
    loss, norm, _ = step_by_hand(run.initial, rows)
    assert run.logged("loss") == [pytest.approx(loss, abs=1e-4)]
    assert run.logged("grad_norm") == [pytest.approx(norm, rel=1e-3)]


def test_a_collator_of_ones_own_is_wrapped_not_replaced(tmp_path: Path) -> None:
    own = OwnCollator()
    run = make_run(tmp_path, rows=4, collator={"base_collator": own}).train()
    batch = run.batches.training[0]
    assert batch["input_ids"].shape == (8, 16)
    assert batch["position_ids"].shape == (8, 16)
    assert [len(features) for features in own.seen] == [8]
    assert_step_by_hand(run)


def test_evaluation_calls_the_own_collator_with_the_very_features(tmp_path: Path) -> None:
    own, data = OwnCollator(), rows_with()
    run = make_run(
        tmp_path, dataset=data, collator={"base_collator": own}, trainer={"eval_dataset": data}
    )
    run.trainer.evaluate()
    assert own.seen == [[data[row] for row in range(ROWS)]]


def test_a_collator_that_cannot_pad_is_an_error_that_says_so(tmp_path: Path) -> None:
    """As with rows padded beforehand: mixed sentences have lengths of their own."""
    texts, labels = make_rows(ROWS, LABELS)
    encoded = word_tokenizer(classifier=True)(texts, padding="max_length", max_length=16)
    data = Dataset.from_dict({**encoded, "label": labels})
    run = make_run(tmp_path, dataset=data, collator={"base_collator": default_data_collator})
    with pytest.raises(ValueError, match="DataCollatorWithPadding"):
        run.train()


@pytest.mark.parametrize("remove", [True, False])
def test_extra_columns_are_dropped_by_the_default_collator(remove: bool, tmp_path: Path) -> None:
    texts, _ = make_rows(ROWS, LABELS)
    plain = make_run(tmp_path / "plain", rows=ROWS, dataset=rows_with()).train()
    data = rows_with(text=texts)
    run = make_run(
        tmp_path / "extra",
        rows=ROWS,
        dataset=data,
        remove_unused_columns=remove,
        trainer={"eval_dataset": data},
    ).train()
    run.trainer.evaluate()
    assert_identical(weights(run.model), weights(plain.model))


@pytest.mark.parametrize("default", [True, False])
def test_extra_columns_give_mixed_rows_a_value(default: bool, tmp_path: Path) -> None:
    """With `remove_unused_columns=False`, by any collator."""
    own = OwnCollator()
    run = make_run(
        tmp_path,
        rows=4,
        dataset=rows_with(idx=list(range(ROWS))).select(range(4)),
        remove_unused_columns=False,
        collator={"extra_columns": {"idx": -7}} | ({} if default else {"base_collator": own}),
    ).train()
    if not default:
        assert [row["idx"] for row in own.seen[0]] == [0, 1, 2, 3] + [-7] * 4
    assert_step_by_hand(run)


@pytest.mark.parametrize("default", [True, False])
def test_an_unknown_column_is_an_error_that_names_it(default: bool, tmp_path: Path) -> None:
    base = {} if default else {"base_collator": OwnCollator()}
    run = make_run(
        tmp_path,
        dataset=rows_with(idx=list(range(ROWS))),
        remove_unused_columns=False,
        collator=base,
    )
    with pytest.raises(ValueError, match=r"\['idx'\].*remove_unused_columns.*extra_columns"):
        run.train()


def test_mixed_rows_get_their_own_text_in_a_text_column(tmp_path: Path) -> None:
    """For collators that tokenize."""
    texts, labels = make_rows(ROWS, LABELS)
    tokenizer = word_tokenizer(classifier=True)
    seen: list[list[str]] = []

    def tokenize(features: list[dict[str, Any]]) -> dict[str, Tensor]:
        seen.append([row["text"] for row in features])
        batch = tokenizer(seen[-1], padding=True, return_tensors="pt")
        return {**batch, "labels": torch.tensor([row["label"] for row in features])}

    run = make_run(
        tmp_path,
        rows=ROWS,
        dataset=Dataset.from_dict({"text": texts, "label": labels}),
        remove_unused_columns=False,
        per_device_train_batch_size=ROWS,
        collator={"base_collator": tokenize},
    ).train()
    assert seen[0][:ROWS] == texts
    assert (
        seen[0][ROWS:] == [row.text for row in expected_rows(run, run.batches.training[0])][ROWS:]
    )
    assert_step_by_hand(run)


@pytest.mark.parametrize("named", [False, True], ids=["indices", "names"])
def test_labels_in_a_column_of_another_name_are_those_of_every_row(
    tmp_path: Path, named: bool
) -> None:
    """Rows in the place of generated ones had the constant that was given for the column."""
    names = ["film", "news", "sport"]
    texts, labels = make_rows(12, LABELS)
    given = [names[label] for label in labels] if named else labels
    tokenizer = word_tokenizer(classifier=True)

    def collate(features: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = tokenizer([row["said"] for row in features], padding=True, return_tensors="pt")
        classes = [row["kind"] if not named else names.index(row["kind"]) for row in features]
        return {**batch, "labels": torch.tensor(classes)}

    rows = Dataset.from_dict({"said": texts, "kind": given})
    arguments = {"remove_unused_columns": False, "num_train_epochs": 2}
    trainer = plain_trainer(
        tmp_path, arguments=arguments, train_dataset=rows, data_collator=collate
    )
    batches = record(trainer.model)
    curriculum = {"curriculum": "first:0.5", "curriculum_fill": "real"}
    mixup = make_mixup(**curriculum, label_names=names if named else None)
    mixup.attach(trainer, label_column="kind")
    trainer.train()
    known = {tuple(tokens(text)): label for text, label in zip(texts, labels, strict=True)}
    last = batches.training[-1]
    assert (last["mixup_rows"] < 0).all() and len(last["labels"]) > 4  # copies beside the real rows
    for ids, mask, soft in zip(
        last["input_ids"], last["attention_mask"], last["soft_labels"], strict=True
    ):
        assert int(soft.argmax()) == known[tuple(ids[mask.bool()].tolist())]
    with pytest.raises(ValueError, match="`extra_columns` must leave out 'kind'"):
        mixup = make_mixup(texts, labels)
        mixup.trainer_kwargs(tokenizer, label_column="kind", extra_columns={"kind": 0})


def test_rows_in_the_place_of_generated_ones_keep_their_labels_whatever_the_collator(
    tmp_path: Path,
) -> None:
    """It may read them from a column for which generated rows have a constant only."""
    texts, labels = make_rows(12, LABELS)
    tokenizer = word_tokenizer(classifier=True)

    def collate(features: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = tokenizer([row["text"] for row in features], padding=True, return_tensors="pt")
        return {**batch, "labels": torch.tensor([row["kind"] for row in features])}

    rows = Dataset.from_dict({"text": texts, "kind": labels})
    mixup = make_mixup(texts, labels, curriculum="first:0.5", curriculum_fill="real")
    trainer = plain_trainer(
        tmp_path,
        arguments={"remove_unused_columns": False, "num_train_epochs": 2},
        train_dataset=rows,
        **mixup.trainer_kwargs(tokenizer, collate, extra_columns={"kind": 0}),
    )
    batches = record(trainer.model)
    trainer.train()
    known = {tuple(tokens(text)): label for text, label in zip(texts, labels, strict=True)}
    last = batches.training[-1]
    for ids, mask, soft, hard in zip(
        last["input_ids"], last["attention_mask"], last["soft_labels"], last["labels"], strict=True
    ):
        label = known[tuple(ids[mask.bool()].tolist())]
        assert int(soft.argmax()) == int(hard) == label


def test_mixed_rows_are_cut_to_max_length(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=4, collator={"max_length": 4}).train()
    batch = run.batches.training[0]
    lengths = batch["attention_mask"].sum(-1)[batch["mixup_rows"] >= 0]
    assert lengths.tolist() == [4] * 4  # six tokens each otherwise


class DictRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Not of the `datasets` library: the Trainer then removes columns in the collator."""

    def __init__(self, rows: Dataset) -> None:
        self.rows = [dict(row) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> dict[str, Any]:
        return self.rows[at]


class StreamedRows(torch.utils.data.IterableDataset[dict[str, Any]]):
    def __init__(self, rows: Dataset) -> None:
        self.rows = [dict(row) for row in rows]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


@pytest.mark.parametrize("remove", [True, False])
def test_a_torch_dataset_of_dicts_trains_the_same_weights(remove: bool, tmp_path: Path) -> None:
    """Also with a column that only RemoveColumnsCollator takes away, and evaluated on."""
    reference = make_run(tmp_path / "datasets", rows=ROWS, dataset=rows_with()).train()
    texts, _ = make_rows(ROWS, LABELS)
    data = DictRows(rows_with(text=texts) if not remove else rows_with(idx=list(range(ROWS))))
    run = make_run(
        tmp_path / "torch",
        rows=ROWS,
        dataset=data,
        trainer={"eval_dataset": data},
        eval_strategy="steps",
        eval_steps=1,
        remove_unused_columns=remove,
    ).train()
    assert_identical(weights(run.model), weights(reference.model))
    assert all("mixup_rows" not in batch for batch in run.batches.evaluation)


def test_features_of_tensors_draw_the_same_rows_as_features_of_lists(tmp_path: Path) -> None:
    lists = make_run(tmp_path / "lists", rows=ROWS, dataset=rows_with()).train()
    tensors = make_run(tmp_path / "tensors", rows=ROWS, dataset=rows_with().with_format("torch"))
    assert tensors.train().batches.mixed_texts() == lists.batches.mixed_texts()
    assert_identical(weights(tensors.model), weights(lists.model))


def test_a_stream_is_refused_with_the_setting_that_helps(tmp_path: Path) -> None:
    run = make_run(tmp_path, dataset=StreamedRows(rows_with()), max_steps=2)
    with pytest.raises(ValueError, match="'dispatch_batches': False"):
        run.train()


def test_a_stream_trains_when_each_process_collates_its_own(tmp_path: Path) -> None:
    reference = make_run(tmp_path / "map", rows=ROWS, dataset=rows_with()).train()
    run = make_run(
        tmp_path / "stream",
        rows=ROWS,
        dataset=StreamedRows(rows_with()),
        max_steps=2,
        accelerator_config={"dispatch_batches": False},
    ).train()
    assert_identical(weights(run.model), weights(reference.model))


def test_every_pass_over_a_stream_gets_a_refill(tmp_path: Path) -> None:
    """Its length is unknown, so the Trainer's `state.epoch` does not count passes."""
    run = make_run(
        tmp_path,
        rows=ROWS,
        dataset=StreamedRows(rows_with()),
        max_steps=6,
        accelerator_config={"dispatch_batches": False},
    ).train()
    assert run.callback.pool is not None
    assert run.callback.pool.refill == 2


def test_a_batch_of_one_row_trains(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=5, dataset=rows_with().select(range(5))).train()
    last = run.batches.training[-1]
    assert last["mixup_rows"].shape == (2,)
    assert last["soft_labels"].shape == (2, LABELS)


def test_batches_of_one_row_train(tmp_path: Path) -> None:
    run = make_run(
        tmp_path, rows=3, per_device_train_batch_size=1, gradient_accumulation_steps=3
    ).train()
    assert [len(batch["labels"]) for batch in run.batches.training] == [2, 2, 2]
    assert_step_by_hand(run)


@pytest.mark.parametrize("name", ["label", "labels", "label_ids"])
def test_the_label_column_may_have_any_name_the_trainer_knows(name: str, tmp_path: Path) -> None:
    data = rows_with()
    data = data if name == "label" else data.rename_column("label", name)
    run = make_run(
        tmp_path,
        rows=ROWS,
        dataset=data,
        per_device_train_batch_size=ROWS,
        collator={"base_collator": DataCollatorWithPadding(word_tokenizer(classifier=True))},
    ).train()
    assert_step_by_hand(run)


def test_class_names_as_labels_train_and_evaluate_as_indices_do(tmp_path: Path) -> None:
    names = ["politics", "sport", "music"]
    data, (texts, labels) = rows_with(), make_rows(ROWS, LABELS)
    named = make_dataset(texts, [names[label] for label in labels])
    indexed = make_run(tmp_path / "indices", rows=ROWS, dataset=data)
    indexed.train()
    run = make_run(
        tmp_path / "names",
        rows=ROWS,
        dataset=named,
        collator={"label2id": {name: index for index, name in enumerate(names)}},
        trainer={"eval_dataset": named},
    ).train()
    assert_identical(weights(run.model), weights(indexed.model))
    expected = indexed.trainer.evaluate(data)["eval_loss"]
    assert run.trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-6)


def test_an_unknown_class_name_is_an_error_that_names_it(tmp_path: Path) -> None:
    texts, _ = make_rows(ROWS, LABELS)
    run = make_run(
        tmp_path,
        dataset=make_dataset(texts, ["opera"] * ROWS),
        collator={"label2id": {"sport": 0, "music": 1, "film": 2}},
    )
    with pytest.raises(ValueError, match="music.*opera"):
        run.train()


def test_mixed_rows_have_the_columns_of_real_rows_and_no_others(tmp_path: Path) -> None:
    """A data set without token types stays one without, although the tokenizer makes them."""
    own = OwnCollator()
    run = make_run(
        tmp_path,
        rows=4,
        dataset=rows_with().remove_columns("token_type_ids"),
        collator={"base_collator": own},
    ).train()
    assert len(own.seen[0]) > 4
    assert {frozenset(row) for row in own.seen[0]} == {frozenset(own.seen[0][0])}
    assert "token_type_ids" not in run.batches.training[0]


def test_a_classifier_with_a_vocabulary_of_its_own_gets_its_own_tokens(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows=4, model=sharp_classifier()).train()
    words = {token for tokens in run.batches.mixed_texts() for token in tokens}
    assert words <= set(range(6 + len(WORDS)))
    assert {2, 3} <= words  # [CLS] and [SEP] of the classifier's tokenizer
