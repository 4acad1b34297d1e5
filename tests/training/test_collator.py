from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_producer, make_rows, word_tokenizer
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

from mixup_hf import MixedExample, MixupCollator, MixupPool
from mixup_hf.training.mixing_collator import MixingCollator

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
    pool.write(0, make_producer().produce(0, 12))
    pool.publish(0)
    return pool


@pytest.fixture
def mixing(tokenizer: PreTrainedTokenizerFast, pool: MixupPool) -> Callable[..., MixingCollator]:
    def make(**settings: Any) -> MixingCollator:
        collator = MixupCollator(tokenizer, num_labels=NUM_LABELS, **settings)
        return MixingCollator(collator, pool)

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
    MixingCollator(collator, pool)(features)
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


def test_a_batch_gets_the_same_mixed_rows_whatever_the_order_and_the_batches_before(
    mixing: Callable[..., MixingCollator], tokenizer: PreTrainedTokenizerFast, features: Features
) -> None:
    one, two = mixing(), mixing()
    two(make_features(tokenizer, 6))
    rows = one(features)["mixup_rows"]
    assert torch.equal(rows, two(features[::-1])["mixup_rows"])
    assert not torch.equal(rows, two(features[:1] * 4)["mixup_rows"])


def test_tensors_and_lists_of_the_same_tokens_draw_the_same_rows(
    mixing: Callable[..., MixingCollator], features: Features
) -> None:
    tensors = [{key: torch.tensor(value) for key, value in row.items()} for row in features]
    collator = mixing()
    assert torch.equal(collator(features)["mixup_rows"], collator(tensors)["mixup_rows"])


@pytest.mark.parametrize(
    ("ratio", "mixed"), [(0.0, 0), (0.2, 2), (0.5, 8), (0.75, 24), (0.03, 0), (0.07, 1)]
)
def test_the_mix_ratio_is_the_share_of_mixed_rows(
    mixing: Callable[..., MixingCollator],
    tokenizer: PreTrainedTokenizerFast,
    ratio: float,
    mixed: int,
) -> None:
    batch = mixing(mix_ratio=ratio)(make_features(tokenizer, 8))
    assert len(batch["input_ids"]) == 8 + mixed
    assert (batch["mixup_rows"] >= 0).sum() == mixed


@given(st.floats(0, 0.95), st.integers(1, 64))
def test_the_share_is_met_as_closely_as_whole_rows_allow(ratio: float, real: int) -> None:
    collator = MixupCollator(TOKENIZER, num_labels=2, mix_ratio=ratio)
    mixed = collator.num_mixed(real)
    assert abs(mixed - ratio * (real + mixed)) <= 0.5 + 1e-6  # off by half a row at the most


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
    collator = mixing()
    sharp = collator(features)["soft_labels"]
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
    assert MixingCollator(collator, pool)(named)["labels"][:4].tolist() == expected
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
