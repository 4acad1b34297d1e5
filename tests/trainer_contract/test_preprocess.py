"""Generated rows are formatted as training rows are; where they are not, a warning shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from attaching import CLASSES, TEXTS, TOKENIZER, make_mixup, plain_trainer, tokenized
from datasets import Dataset
from trainer_runs import record
from transformers import Trainer

from mixup_hf.errors import MixupError
from mixup_hf.training.preprocess import features_of

PREFIX = "what is the "


def with_prefix(texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> Any:
    return TOKENIZER([PREFIX + text for text in texts], truncation=True)


def mixed_inputs(trainer: Trainer) -> list[list[int]]:
    """Train; return the tokens of mixed rows, without padding."""
    batches = record(trainer.model)
    trainer.train()
    return [
        ids[mask.bool()].tolist()
        for batch in batches.training
        for ids, mask, at in zip(
            batch["input_ids"], batch["attention_mask"], batch["mixup_rows"], strict=True
        )
        if at >= 0
    ]


def test_the_hook_formats_generated_rows_as_training_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = plain_trainer(tmp_path, train_dataset=tokenized(prefix=PREFIX))
    make_mixup().attach(trainer, preprocess=with_prefix)
    start = TOKENIZER(PREFIX)["input_ids"][:-1]
    rows = mixed_inputs(trainer)
    assert rows
    assert all(row[: len(start)] == start for row in rows)
    assert "training rows start" not in caplog.text


@pytest.mark.parametrize("how", ["pair", "joined"])
def test_rows_that_hold_more_than_the_mixed_text_are_refused(tmp_path: Path, how: str) -> None:
    """A second text, or a title: generated rows would lack it, and real ones in their place."""
    more = [f"{text} and {TEXTS[at - 1]}" for at, text in enumerate(TEXTS)]
    given = (
        (TEXTS, more)
        if how == "pair"
        else ([f"{b} {a}" for a, b in zip(TEXTS, more, strict=True)],)
    )
    rows = {"text": TEXTS, "label": CLASSES, **TOKENIZER(*given, truncation=True)}
    trainer = plain_trainer(tmp_path, train_dataset=Dataset.from_dict(rows))
    with pytest.raises(MixupError, match="hold more than the text that is mixed.*text_pair_column"):
        make_mixup().attach(trainer, text_column="text")


def test_one_row_that_is_cut_shows_where_rows_are_cut(tmp_path: Path) -> None:
    """Wherever it is: only some rows are compared."""
    texts = [*TEXTS, *(f"{text} of {at}" for at, text in enumerate(TEXTS * 4))]
    texts[42] = " ".join(TEXTS)  # between two of the 32 rows that are compared otherwise
    rows = tokenized(texts, (CLASSES * 5)[: len(texts)], max_length=20)
    trainer = plain_trainer(tmp_path, train_dataset=rows)
    make_mixup().attach(trainer)
    hook = trainer.data_collator.preprocess
    assert max(map(len, rows["input_ids"])) == 20 == hook.max_length


@pytest.mark.parametrize("attached", [True, False])
def test_a_prefix_that_generated_rows_would_lack_is_shown(
    attached: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixup = make_mixup(TEXTS, CLASSES)
    kwargs = {} if attached else mixup.trainer_kwargs(TOKENIZER)
    trainer = plain_trainer(tmp_path, train_dataset=tokenized(prefix=PREFIX), **kwargs)
    if attached:
        mixup.attach(trainer)
    trainer.train()
    shown = "All training rows start with '[CLS] what is the', generated rows"
    assert caplog.text.count(shown) == 1  # `attach` and the training that begins both look
    assert "preprocess" in caplog.text


def test_so_is_a_suffix(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoded = TOKENIZER([f"{text} is it good" for text in TEXTS])
    data = Dataset.from_dict({"text": TEXTS, "label": CLASSES, **encoded})
    make_mixup().attach(plain_trainer(tmp_path, train_dataset=data))
    assert "All training rows end with" in caplog.text
    assert "good [SEP]" in caplog.text


def test_rows_formatted_as_texts_are_said_nothing_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Texts may well begin alike themselves."""
    alike = [f"what {text}" for text in TEXTS]
    trainer = plain_trainer(tmp_path, train_dataset=tokenized(alike))
    make_mixup().attach(trainer)
    assert "All training rows" not in caplog.text


def test_generated_rows_are_truncated_where_training_rows_are(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, train_dataset=tokenized(max_length=5))
    make_mixup(max_new_tokens=12).attach(trainer)
    rows = mixed_inputs(trainer)
    assert max(map(len, rows)) == 5
    assert all(row[-1] == TOKENIZER.sep_token_id for row in rows)


def test_without_a_truncated_row_nothing_is_cut(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    mixup = make_mixup(max_new_tokens=12, form="free", length="free").attach(trainer)
    assert max(map(len, mixed_inputs(trainer))) > max(map(len, tokenized()["input_ids"]))
    assert mixup.texts == TEXTS


def test_both_texts_of_a_pair_go_through_the_hook(tmp_path: Path) -> None:
    def paired(texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> Any:
        assert text_pairs is not None
        return TOKENIZER([PREFIX + text for text in texts], list(text_pairs))

    firsts, seconds = TEXTS, TEXTS[::-1]
    columns = {"a": firsts, "b": seconds, "label": CLASSES, **paired(firsts, seconds)}
    trainer = plain_trainer(tmp_path, train_dataset=Dataset.from_dict(columns))
    make_mixup().attach(trainer, "a", "b", preprocess=paired)
    rows = mixed_inputs(trainer)
    assert all(row.count(TOKENIZER.sep_token_id) == 2 for row in rows)


def test_a_list_of_features_will_do() -> None:
    def one_by_one(texts: Sequence[str], text_pairs: Any = None) -> Any:
        return [{"input_ids": [len(text)]} for text in texts]

    assert features_of(one_by_one, ["a", "bcd"]) == [{"input_ids": [1]}, {"input_ids": [3]}]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"input_ids": [[1]]}, "one row for each text, but got 1 rows for 2"),
        ([{"input_ids": [1]}], "one row for each text"),
        ("no features", "must return a list of feature dicts"),
        (None, "must return a list of feature dicts"),
    ],
)
def test_what_a_hook_must_not_return_is_named(made: Any, message: str) -> None:
    with pytest.raises(MixupError, match=message):
        features_of(lambda texts: made, ["a", "b"])


def test_max_length_and_a_hook_are_refused_together() -> None:
    with pytest.raises(MixupError, match="With `preprocess` given, truncate in it"):
        make_mixup(TEXTS, CLASSES).trainer_kwargs(TOKENIZER, preprocess=with_prefix, max_length=8)
