from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_producer, make_rows, word_tokenizer
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

from mixup_hf import MixedExample, MixupCollator, MixupPool
from mixup_hf.training.mixing_collator import MixingCollator
from mixup_hf.training.schedule import Schedule, mixed_per_real

Features = list[dict[str, Any]]
NUM_LABELS = 3
TOKENIZER = word_tokenizer(classifier=True)


def make_features(tokenizer: PreTrainedTokenizerFast, count: int = 4) -> Features:
    texts, labels = make_rows(count)
    return [
        dict(tokenizer(text)) | {"label": label} for text, label in zip(texts, labels, strict=True)
    ]


@pytest.fixture
def features(tokenizer: PreTrainedTokenizerFast) -> Features:
    return make_features(tokenizer)


@pytest.fixture
def pool(tmp_path: Path) -> MixupPool:
    pool = MixupPool(tmp_path, seed=0)
    pool.begin_epoch(0, refill=0, size=24)
    pool.append(make_producer().produce(0, 24))
    return pool


def extend(collator: MixupCollator, pool: MixupPool, batch_size: int = 4) -> MixingCollator:
    ratio = mixed_per_real(collator.mix_ratio)
    return MixingCollator(collator, pool, Schedule(ratio, batch_size, epoch_rows=24))


@pytest.fixture
def mixing(tokenizer: PreTrainedTokenizerFast, pool: MixupPool) -> Callable[..., MixingCollator]:
    def make(**settings: Any) -> MixingCollator:
        return extend(MixupCollator(tokenizer, num_labels=NUM_LABELS, **settings), pool)

    return make


def drawn(batch: Any, pool: MixupPool) -> list[MixedExample]:
    return [pool.rows()[at] for at in batch["mixup_rows"].tolist() if at >= 0]


def test_called_as_it_is_it_is_the_wrapped_collator(
    tokenizer: PreTrainedTokenizerFast, features: Features
) -> None:
    plain = DataCollatorWithPadding(tokenizer)(features)
    for collator in (
        MixupCollator(tokenizer, num_labels=NUM_LABELS),
        MixupCollator(
            tokenizer, num_labels=NUM_LABELS, base_collator=DataCollatorWithPadding(tokenizer)
        ),
    ):
        batch = collator(features)
        assert set(batch) == set(plain)
        assert all(torch.equal(batch[key], plain[key]) for key in plain)


def test_making_a_mixing_side_does_not_make_the_plain_one_mix(
    tokenizer: PreTrainedTokenizerFast, features: Features, pool: MixupPool
) -> None:
    collator = MixupCollator(tokenizer, num_labels=NUM_LABELS)
    extend(collator, pool)(features)
    assert len(collator(features)["input_ids"]) == len(features)


def test_real_rows_come_first_and_unchanged(
    mixing: Callable[..., MixingCollator], tokenizer: PreTrainedTokenizerFast, features: Features
) -> None:
    batch = mixing()(features)
    for row, feature in enumerate(features):
        length = len(feature["input_ids"])
        assert batch["input_ids"][row, :length].tolist() == feature["input_ids"]
        assert batch["attention_mask"][row].sum() == length
    assert batch["mixup_rows"][:4].tolist() == [-1] * 4
    assert torch.equal(batch["soft_labels"][:4], torch.eye(NUM_LABELS)[batch["labels"][:4]])
    assert batch["labels"][:4].tolist() == [feature["label"] for feature in features]


def test_mixed_rows_are_rows_of_the_pool_tokenized_like_the_others(
    mixing: Callable[..., MixingCollator],
    tokenizer: PreTrainedTokenizerFast,
    features: Features,
    pool: MixupPool,
) -> None:
    batch = mixing()(features)
    examples = drawn(batch, pool)
    assert len(examples) == 4
    assert batch["labels"].dtype == torch.int64
    assert batch["soft_labels"].dtype == torch.float32
    for row, example in enumerate(examples, start=4):
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        assert ids.tolist() == tokenizer(example.text)["input_ids"]
        assert batch["soft_labels"][row].tolist() == pytest.approx(example.label)
        assert batch["labels"][row] == example.hard_label


def test_batches_take_the_rows_in_order_whatever_they_hold(
    mixing: Callable[..., MixingCollator], features: Features
) -> None:
    one, two = mixing(), mixing()
    rows = [one(features)["mixup_rows"][4:].tolist() for _ in range(3)]
    assert rows == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [two(features[::-1])["mixup_rows"][4:].tolist() for _ in range(3)] == rows


def test_batches_are_counted_anew_in_each_epoch(
    mixing: Callable[..., MixingCollator], features: Features, pool: MixupPool
) -> None:
    collator = mixing()
    collator(features)
    pool.begin_epoch(0, refill=0, size=24, first_batch=5)
    assert collator(features)["mixup_rows"][4:].tolist() == [20, 21, 22, 23]


def test_from_the_batch_that_stops_mixing_on_rows_are_real(
    mixing: Callable[..., MixingCollator], features: Features, pool: MixupPool
) -> None:
    pool.stop(2)
    collator = mixing()
    assert [len(collator(features)["labels"]) for _ in range(4)] == [8, 8, 4, 4]


@pytest.mark.parametrize(("ratio", "mixed"), [(0.0, 0), (0.2, 2), (0.5, 8), (0.75, 24)])
def test_the_mix_ratio_is_the_share_of_mixed_rows(
    mixing: Callable[..., MixingCollator],
    tokenizer: PreTrainedTokenizerFast,
    ratio: float,
    mixed: int,
) -> None:
    batch = mixing(mix_ratio=ratio)(make_features(tokenizer, 8))
    assert len(batch["input_ids"]) == 8 + mixed
    assert (batch["mixup_rows"] >= 0).sum() == mixed


def test_a_last_batch_that_is_too_small_for_a_mixed_row_still_has_soft_labels(
    mixing: Callable[..., MixingCollator], features: Features
) -> None:
    batch = mixing(mix_ratio=0.2)(features[:1])
    assert batch["soft_labels"].shape == (1, NUM_LABELS)
    assert batch["mixup_rows"].tolist() == [-1]


def test_the_weight_of_a_mixed_row_is_the_mass_of_its_labels(
    mixing: Callable[..., MixingCollator], features: Features
) -> None:
    mass = mixing(mixed_weight=0.25)(features)["soft_labels"].sum(-1)
    assert torch.allclose(mass, torch.tensor([1.0] * 4 + [0.25] * 4))


def test_smoothing_goes_over_real_and_mixed_rows(
    mixing: Callable[..., MixingCollator], features: Features
) -> None:
    sharp = mixing()(features)["soft_labels"]
    collator = mixing()
    collator.plain.label_smoothing = 0.3
    assert torch.allclose(collator(features)["soft_labels"], 0.7 * sharp + 0.1, atol=1e-6)


def test_for_an_explicit_loss_the_soft_labels_are_the_labels(
    mixing: Callable[..., MixingCollator], features: Features
) -> None:
    soft = mixing()(features)["soft_labels"]
    batch = mixing(label_format="labels")(features)
    assert torch.equal(batch["labels"], soft)
    assert "soft_labels" not in batch


def test_class_names_become_indices_for_training_and_evaluation(
    tokenizer: PreTrainedTokenizerFast, features: Features, pool: MixupPool
) -> None:
    names = {"a": 2, "b": 0, "c": 1}
    named = [row | {"label": "abc"[row["label"]]} for row in features]
    collator = MixupCollator(tokenizer, num_labels=NUM_LABELS, label2id=names)
    expected = [names["abc"[row["label"]]] for row in features]
    assert collator(named)["labels"].tolist() == expected
    assert extend(collator, pool)(named)["labels"][:4].tolist() == expected
    with pytest.raises(ValueError, match=r"`label` must be one of \['a', 'b', 'c'\].*'d'"):
        collator([features[0] | {"label": "d"}])


def test_mixed_rows_are_cut_to_max_length(
    mixing: Callable[..., MixingCollator], features: Features
) -> None:
    batch = mixing(max_length=3)(features)
    assert batch["attention_mask"][4:].sum(-1).max() <= 3
    assert batch["attention_mask"][:4].sum(-1).max() > 3


def test_the_users_collator_gets_mixed_rows_with_the_columns_of_real_ones(
    mixing: Callable[..., MixingCollator],
    tokenizer: PreTrainedTokenizerFast,
    features: Features,
    pool: MixupPool,
) -> None:
    seen: list[Features] = []

    def custom(rows: Features) -> Any:
        seen.append(rows)
        kept = ("input_ids", "attention_mask", "label")
        batch = DataCollatorWithPadding(tokenizer)(
            [{key: row[key] for key in kept} for row in rows]
        )
        batch["own"] = torch.tensor([row["weight"] for row in rows])
        return batch

    rows = [row | {"text": "real", "weight": 7} for row in features]
    batch = mixing(base_collator=custom, extra_columns={"weight": 1})(rows)
    assert all(set(row) == set(rows[0]) for row in seen[0])
    assert batch["own"].tolist() == [7] * 4 + [1] * 4
    texts = [example.text for example in drawn(batch, pool)]
    assert [row["text"] for row in seen[0]] == ["real"] * 4 + texts


def test_a_column_that_mixed_rows_cannot_have_is_named_with_the_way_out(
    mixing: Callable[..., MixingCollator], features: Features
) -> None:
    with pytest.raises(ValueError, match=r"\['idx', 'url'\].*extra_columns=\{'idx': \.\.\.\}"):
        mixing()([row | {"url": "x", "idx": 1} for row in features])


@pytest.mark.parametrize(
    ("label", "got"),
    [([0.0, 1.0, 0.0], r"\(8, 3\)"), (0.5, r"\(8,\)")],
    ids=["multi", "regression"],
)
def test_other_tasks_are_refused(
    mixing: Callable[..., MixingCollator],
    tokenizer: PreTrainedTokenizerFast,
    features: Features,
    label: Any,
    got: str,
) -> None:
    def floats(rows: Features) -> Any:
        batch = DataCollatorWithPadding(tokenizer)([row | {"label": 0} for row in rows])
        batch["labels"] = torch.tensor([label] * len(rows))
        return batch

    with pytest.raises(
        ValueError, match=rf"class indices of shape \(8,\).*got {got}.*single-label"
    ):
        mixing(base_collator=floats)(features)


def test_features_without_labels_are_refused_for_training(
    mixing: Callable[..., MixingCollator], features: Features
) -> None:
    unlabelled = [{key: row[key] for key in row if key != "label"} for row in features]
    with pytest.raises(ValueError, match="under 'labels', but got NoneType"):
        mixing()(unlabelled)


def test_a_label_outside_the_classes_is_named(
    mixing: Callable[..., MixingCollator], features: Features
) -> None:
    with pytest.raises(ValueError, match="num_labels"):
        mixing()([row | {"label": 3} for row in features])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mix_ratio": 1.0}, "`mix_ratio` must be below 1.*A batch needs real rows"),
        ({"mix_ratio": -0.1}, r"`mix_ratio` must lie in \[0"),
        ({"mixed_weight": 0}, "`mixed_weight` must be greater than 0"),
        ({"num_labels": 1}, "`num_labels` must be at least 2"),
        ({"label_format": "onehot"}, "`label_format` must be one of"),
    ],
)
def test_settings_out_of_range_are_refused(
    tokenizer: PreTrainedTokenizerFast, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MixupCollator(tokenizer, **({"num_labels": 3} | settings))
