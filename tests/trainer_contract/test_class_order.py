"""Rows, labels and classes of the Trainer are those that are mixed, or the run stops."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from attaching import CLASSES, TEXTS, TOKENIZER, make_mixup, plain_trainer, tokenized
from tiny import make_classifier, make_rows
from trainer_runs import LABELS

from mixup_hf.errors import MixupError

NAMES = ["world", "sport", "music"]


def run(folder: Path, mixup: Any, *, check_rows: bool = True, **settings: Any) -> None:
    """Train with keyword arguments, so that checks are made when training begins."""
    kwargs = mixup.trainer_kwargs(TOKENIZER, check_rows=check_rows)
    plain_trainer(folder, **kwargs, **settings).train()


def named_model(names: list[str]) -> Any:
    model = make_classifier(LABELS)
    model.config.id2label = dict(enumerate(names))
    return model


def test_sorted_names_are_not_the_models_order(tmp_path: Path) -> None:
    """AG News: World, Sports, Business, Sci/Tech."""
    mixup = make_mixup(TEXTS, [NAMES[label] for label in CLASSES])
    with pytest.raises(MixupError, match=r"\['music', 'sport', 'world'\].*label_names=\[model"):
        run(tmp_path, mixup, model=named_model(NAMES))


def test_the_models_order_is_accepted(tmp_path: Path) -> None:
    names = [NAMES[label] for label in CLASSES]
    run(tmp_path, make_mixup(TEXTS, names, label_names=NAMES), model=named_model(NAMES))


def test_default_names_are_compatible_by_index(tmp_path: Path) -> None:
    run(tmp_path / "model", make_mixup(TEXTS, CLASSES), model=named_model(NAMES))
    names = [f"{label} class" for label in CLASSES]
    run(tmp_path / "rows", make_mixup(TEXTS, names))  # the model has LABEL_0, LABEL_1, ...


def test_other_names_are_matched_by_index_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, make_mixup(TEXTS, CLASSES, label_names=["a", "b", "c"]), model=named_model(NAMES))
    assert "they are matched by index" in caplog.text


@pytest.mark.parametrize("shuffled", [False, True])
def test_permuted_labels_stop_the_run(shuffled: bool, tmp_path: Path) -> None:
    data = tokenized(labels=[(label + 1) % LABELS for label in CLASSES])
    data = data.shuffle(seed=1) if shuffled else data
    with pytest.raises(MixupError, match=r"has the label \d \('\d'\), but in the labels given"):
        run(tmp_path, make_mixup(TEXTS, CLASSES), train_dataset=data)


def test_permuted_names_without_names_on_the_model_stop_the_run(tmp_path: Path) -> None:
    """The model has default names: only the rows tell."""
    mixup = make_mixup(TEXTS, [NAMES[label] for label in CLASSES])
    with pytest.raises(MixupError, match=r"label 0 \('music'\).*has 2 \('world'\)"):
        run(tmp_path, mixup)


def test_the_test_split_stops_the_run(tmp_path: Path) -> None:
    texts, labels = make_rows(40)
    with pytest.raises(MixupError, match=r"is not among the 12 texts.*another split"):
        run(tmp_path, make_mixup(TEXTS, CLASSES), train_dataset=tokenized(texts[20:], labels[20:]))


def test_a_validation_split_made_later_stops_the_run(tmp_path: Path) -> None:
    data = tokenized().train_test_split(test_size=4, seed=0)["train"]
    with pytest.raises(MixupError, match="8 rows, but 12 rows are mixed.*parents outside"):
        run(tmp_path, make_mixup(TEXTS, CLASSES), train_dataset=data)


@pytest.mark.parametrize("max_length", [None, 4])
def test_rows_in_another_order_are_found(max_length: int | None, tmp_path: Path) -> None:
    encoded = tokenized() if max_length is None else tokenized(max_length=max_length)
    run(tmp_path, make_mixup(TEXTS, CLASSES), train_dataset=encoded.shuffle(seed=1))


def test_padded_rows_and_tensors_are_compared_too(tmp_path: Path) -> None:
    padded = tokenized(padding="max_length", max_length=16).with_format("torch")
    run(tmp_path, make_mixup(TEXTS, CLASSES), train_dataset=padded)


def test_few_rows_are_tokenized_when_the_order_is_the_same(tmp_path: Path) -> None:
    texts, labels = make_rows(600)
    seen: list[str] = []

    def preprocess(rows: list[str]) -> Any:
        seen.extend(rows)
        return TOKENIZER(rows)

    mixup = make_mixup(texts, labels)
    kwargs = mixup.trainer_kwargs(TOKENIZER, preprocess=preprocess)
    callback = kwargs["callbacks"][0]
    data = tokenized(texts, labels).remove_columns("text")
    callback.contract.check(make_classifier(LABELS), data)
    assert len(seen) < 40


def test_rows_that_change_at_every_access_may_be_left_unchecked(tmp_path: Path) -> None:
    rng = random.Random(0)

    class Noisy(list[dict[str, Any]]):
        def __getitem__(self, at: Any) -> Any:
            row = dict(super().__getitem__(at))
            row["input_ids"] = [2, *rng.choices(range(6, 50), k=4), 3]
            return {"input_ids": row["input_ids"], "label": row["label"]}

    data: Any = Noisy(tokenized())
    with pytest.raises(MixupError, match="other rows than those that are mixed"):
        run(tmp_path / "checked", make_mixup(TEXTS, CLASSES), train_dataset=data)
    run(tmp_path / "free", make_mixup(TEXTS, CLASSES), check_rows=False, train_dataset=data)
