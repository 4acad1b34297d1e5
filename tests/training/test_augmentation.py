from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value, concatenate_datasets
from tiny import make_inverter, make_rows

from mixup_hf import InversedMixup, OfflineMixup, augment_dataset
from mixup_hf.data.row_formats import read_records, read_run
from mixup_hf.data.tables import read_table
from mixup_hf.training.augmentation import Written, augment_file

NAMES = ["news", "film", "sport"]
TEXTS, LABELS = make_rows(12)
FAST = {"max_new_tokens": 4}


def labelled() -> Dataset:
    features = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})
    return Dataset.from_dict({"text": TEXTS, "label": LABELS}, features=features)


def augment(dataset: Any, **settings: Any) -> Dataset:
    return augment_dataset(dataset, inverter=make_inverter(), **FAST, **settings)


def test_class_labels_stay_class_labels() -> None:
    train = labelled()
    made = augment(train, num_samples=5, columns=["text", "label"])
    assert made.features == train.features
    assert len(concatenate_datasets([train, made])) == 17
    assert set(made["label"]) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("feature", "labels"),
    [
        (Value("float32"), [0.5 + at for at in LABELS]),
        (Value("int8"), LABELS),
        (List(Value("int64")), [[int(at == 0), int(at != 1), 1] for at in LABELS]),
        (List(Value("float64")), [[int(at == 0), int(at != 1), 1] for at in LABELS]),
        (List(ClassLabel(names=NAMES)), [[at, 2] if at < 2 else [2] for at in LABELS]),
        (List(Value("string")), [[NAMES[at]] for at in LABELS]),
    ],
)
def test_labels_have_the_feature_they_were_given_with(feature: Any, labels: list[Any]) -> None:
    features = Features({"text": Value("string"), "label": feature})
    train = Dataset.from_dict({"text": TEXTS, "label": labels}, features=features)
    made = augment(train, num_samples=5, columns=["text", "label"])
    both = concatenate_datasets([train, made])
    assert both.features == train.features
    if isinstance(labels[0], list) and len(labels[0]) == 3:
        assert all(len(each) == 3 and each[2] == 1 for each in made["label"])


def test_all_columns_but_the_parents_texts_by_default() -> None:
    made = augment(labelled(), num_samples=4)
    assert {"text", "label", "soft_label", "lam", "parents", "mitigation"} <= set(made.column_names)
    assert "parent_texts" not in made.column_names
    row = augment(labelled(), num_samples=4, parents=True)[0]
    assert row["parent_texts"] == [TEXTS[at] for at in row["parents"]]
    none = augment(labelled(), num_samples=4, provenance="none")
    assert none.column_names == ["text", "label", "soft_label"]


def test_as_many_rows_as_there_are_by_default_the_same_each_time() -> None:
    plain = Dataset.from_dict({"text": TEXTS, "label": [NAMES[at] for at in LABELS]})
    made = augment(plain)
    assert len(made) == 12
    assert made.features["label"] == Value("string")
    assert made[:] == augment(plain)[:]
    assert made[:] != augment(plain, seed=1)[:]


def test_generated_data_sets_are_read_again() -> None:
    made = augment(labelled(), num_samples=6)
    assert [record["text"] for _, record in read_records(made)] == list(made["text"])


def test_rows_with_several_classes_are_counted_for_each(tmp_path: Path) -> None:
    labels = [["news"], ["news", "film"], ["film"], [], ["sport"], ["sport", "news"]] * 2
    data = Dataset.from_dict({"text": TEXTS, "label": labels})
    table = read_table(data, "text", "label")
    mixup = InversedMixup(
        make_inverter(), table.texts, table.labels, label_names=NAMES, max_new_tokens=4
    )
    done = augment_file(tmp_path / "rows.jsonl", mixup, table, 6, data={})
    assert done.real_by_class == {"news": 6, "film": 4, "sport": 4}
    rows = [record for _, record in read_records(tmp_path / "rows.jsonl")]
    assert sum(done.summary.by_class.values()) == sum(
        share >= 0.5 for row in rows for share in row["soft_label"].values()
    )


def test_generating_shows_a_bar_unless_the_caller_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bars: list[Any] = []

    @contextmanager
    def bar(total: int) -> Iterator[Any]:
        bars.append(SimpleNamespace(total=total, n=0))
        yield SimpleNamespace(update=lambda count: setattr(bars[-1], "n", bars[-1].n + count))

    for home in ("augmentation", "inversed"):
        monkeypatch.setattr(f"mixup_hf.training.{home}.generating_bar", bar)
    augment(labelled(), num_samples=10)
    InversedMixup(make_inverter(), TEXTS, LABELS, label_source="parents", **FAST).generate(5)
    assert [(each.total, each.n) for each in bars] == [(10, 10), (5, 5)]


def test_one_row_per_class_is_nothing_to_mix() -> None:
    few = Dataset.from_dict({"text": TEXTS[:3], "label": [0, 1, 2]})
    with pytest.raises(ValueError, match="there is nothing to mix"):
        augment(few, pairing="same_class")
    with pytest.raises(ValueError, match="there is nothing to mix"):  # before a model is loaded
        InversedMixup.from_pretrained("no/such-aligner", TEXTS[:3], [0, 1, 2])
    assert len(augment(few, pairing="random", num_samples=2)) == 2


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_a_file_has_its_settings_beside_it_and_is_trained_on(tmp_path: Path, format: str) -> None:
    table = read_table(labelled(), "text", "label")
    mixup = InversedMixup(
        make_inverter(), table.texts, table.labels, label_names=NAMES, max_new_tokens=4
    )
    file = tmp_path / f"rows.{format}"
    counted: list[int] = []
    done = augment_file(file, mixup, table, 7, data={"data": "x"}, on_chunk=counted.append)
    assert sum(counted) == done.summary.rows == 7
    assert done.real_by_class == {"news": 4, "film": 4, "sport": 4}
    run = read_run(file)
    assert run["num_samples"] == 7
    assert run["settings"]["temperature"] == 0.7  # defaults are recorded too
    offline = OfflineMixup(file, table.texts, table.labels, label_names=NAMES)
    assert len(offline.producer.rows) == 7
    with pytest.raises(ValueError, match="generated from other texts"):
        OfflineMixup(file, table.texts[::-1], table.labels[::-1], label_names=NAMES)
    augment_file(file, mixup, table, 2, data={}, written=Written(provenance="none"))
    assert read_run(file) == {}
