"""Texts of two sides: premise and hypothesis, question and answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import WORDS, make_inverter, make_rows, word_tokenizer
from trainer_runs import LABELS, Run, make_run

from mixup_hf import FinetuneConfig, InversedMixup, MixupConfig, finetune, load_config
from mixup_hf.data.text_pairs import MARK, PairEncoder, both_sides, join_sides, split_sides
from mixup_hf.mixing.interpolation import mix

ROWS = 12
FIRST, CLASSES = make_rows(ROWS, LABELS)
SECOND = [" ".join(reversed(text.split())) + " now" for text in FIRST]
PAIRS = list(zip(FIRST, SECOND, strict=True))


def make_plugin(**settings: Any) -> InversedMixup:
    config = MixupConfig(max_new_tokens=4, temperature=1.0, **({"intrusion": "off"} | settings))
    return InversedMixup(make_inverter(), PAIRS, CLASSES, num_labels=LABELS, config=config)


def test_joining_and_splitting_are_inverse() -> None:
    joined = join_sides("texts", PAIRS)
    assert [split_sides(text) for text in joined] == PAIRS
    assert join_sides("texts", joined) == joined
    assert join_sides("texts", FIRST) == FIRST
    assert [split_sides(text) for text in FIRST] == [(text,) for text in FIRST]


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("one string", TypeError, "`texts` must be a list of strings"),
        ([("a", "b"), "c"], ValueError, "but not both"),
        ([("a", "b", "c")], TypeError, r"`texts\[0\]` must be a string, or a pair of strings"),
        ([("a", "b"), ("c", None)], TypeError, r"`texts\[1\]` must be a string, or a pair"),
        ([("a", f"b{MARK}c")], TypeError, r"`texts\[0\]` must be a string, or a pair"),
        ([f"a{MARK}b{MARK}c"], ValueError, "pairs of texts, but got '3 sides'"),
        ([("a", " ")], ValueError, "must hold no empty"),
        ([3], TypeError, r"`texts\[0\]` must be a string, or a pair of strings, but got int"),
    ],
)
def test_what_is_no_list_of_pairs_is_refused(texts: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        join_sides("texts", texts)


def test_both_sides_are_mixed_by_the_same_weight() -> None:
    inverter = make_inverter()
    encoder = PairEncoder(inverter)
    embeddings = encoder.encode(join_sides("texts", PAIRS))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(ROWS))
    shares = torch.tensor([[0.3, 0.7]])
    seen: list[torch.Tensor] = []

    def invert(mixes: torch.Tensor, seed: Any) -> list[str]:
        seen.append(mixes)
        return [f"side {seed[-1]}"] * len(mixes)

    mixed = mix(embeddings[torch.tensor([[0, 1]])], shares, "linear")
    assert both_sides(invert)(mixed, (5, 6)) == [f"side 0{MARK}side 1"]
    for side, texts in zip(seen, (FIRST, SECOND), strict=True):
        one, two = inverter.encode(texts[:2])
        torch.testing.assert_close(side[0], 0.3 * one + 0.7 * two)


def test_rows_of_pairs_have_two_sides_that_differ() -> None:
    rows = make_plugin().generate(20)
    sides = [split_sides(row.text) for row in rows]
    assert all(len(each) == 2 and all(each) for each in sides)
    assert sum(first != second for first, second in sides) > 10


@pytest.mark.parametrize("policy", ["drop", "relabel"])
@pytest.mark.parametrize("judge", ["knn", "classifier", "llm"])
def test_pairs_are_judged(policy: str, judge: str) -> None:
    judged = {"intrusion": policy, "judges": (judge,), "label_source": "parents"}
    rows = make_plugin(form="free", **judged).generate(8)
    assert all(set(row.judges) == {judge} for row in rows)
    assert all(len(split_sides(row.text)) == 2 for row in rows)


def test_pairs_are_labelled_by_all_default_members() -> None:
    rows = make_plugin().generate(8)
    assert all(set(row.votes) == {"encoder", "llm", "setfit"} for row in rows)
    assert all(len(split_sides(row.text)) == 2 for row in rows)


@pytest.mark.parametrize("blank", [f" {MARK}the court", f"the court{MARK}", f"{MARK} "])
@pytest.mark.parametrize("source", ["parents", "committee"])
def test_a_side_without_words_is_judged_and_labelled(blank: str, source: str) -> None:
    mixup = make_plugin(label_source=source, intrusion="keep", committee=("encoder", "llm"))
    mixup.producer.invert = lambda mixes, seed, lengths: [blank] * len(mixes)
    assert len(mixup.generate(4)) == 4


def train(folder: Path, plugin: InversedMixup) -> Run:
    tokenizer = word_tokenizer(classifier=True)
    encoded = tokenizer(FIRST, SECOND)
    from datasets import Dataset

    dataset = Dataset.from_dict({**encoded, "label": CLASSES})
    kwargs = plugin.trainer_kwargs(tokenizer)
    return make_run(folder, rows=ROWS, dataset=dataset, trainer=kwargs).train()


def test_the_model_sees_both_sides_of_a_mixed_row_as_of_a_real_one(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(classifier=True)
    run = train(tmp_path, make_plugin())
    (callback,) = (
        each
        for each in run.trainer.callback_handler.callbacks
        if type(each).__name__ == "MixupCallback"
    )
    expected = {
        tuple(tokenizer(*split_sides(row.text))["input_ids"]) for row, _ in callback.used_rows()
    }
    assert set(run.batches.mixed_texts()) == expected


@pytest.mark.parametrize(
    "settings", [{"interpolation": "slerp"}, {"source": "task"}, {"interpolation": "linear_renorm"}]
)
def test_what_pairs_cannot_be_mixed_with_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="for pairs of texts"):
        make_plugin(**settings)


def test_a_training_pair_among_the_evaluation_pairs_is_noticed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = MixupConfig(intrusion="off")
    for others, said in ((PAIRS[:1], True), ([(FIRST[0], SECOND[1])], False)):
        caplog.clear()
        InversedMixup(
            make_inverter(), PAIRS, CLASSES, num_labels=LABELS, eval_texts=others, config=config
        )
        assert ("are evaluation texts too" in caplog.text) == said


def test_a_tokenizer_is_given_both_sides() -> None:
    from mixup_hf.data.tables import LabelledTexts
    from mixup_hf.data.targets import read_targets
    from mixup_hf.finetuning.runner import tokenized

    tokenizer = word_tokenizer(classifier=True)
    table = LabelledTexts(join_sides("texts", PAIRS), [WORDS[label] for label in CLASSES])
    targets = read_targets(table.labels, None, None)
    encoded = tokenized(table, targets, tokenizer, max_length=32)
    assert encoded["input_ids"] == tokenizer(FIRST, SECOND)["input_ids"]


def test_finetune_reads_pairs_from_two_columns(
    tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    rows = [
        {"premise": first, "hypothesis": second, "label": WORDS[label]}
        for (first, second), label in zip(PAIRS, CLASSES, strict=True)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    aligner = saved_aligner()
    config = {
        "data": {
            "train_file": str(data),
            "test_file": str(data),
            "text_column": "premise",
            "text_pair_column": "hypothesis",
        },
        "output_dir": str(tmp_path / "out"),
        "model": str(tmp_path / "encoder"),
        "training": {"num_train_epochs": 1, "use_cpu": True},
        "mixup": {"aligner": str(aligner), "max_new_tokens": 4, "intrusion": "off", "leaks": "off"},
    }
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(config))
    metrics = finetune(load_config(FinetuneConfig, file))
    assert metrics["mixed_rows"] > 0
    lines = (tmp_path / "out" / "mixed.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        assert MARK not in line["text"]
        assert line["text_pair"]
        assert [tuple(pair) for pair in line["parent_texts"]] == [
            PAIRS[parent] for parent in line["parents"]
        ]
    with pytest.raises(ValueError, match="`text_pair_column` must be a column of"):
        config["data"]["text_pair_column"] = "conclusion"
        file.write_text(json.dumps(config))
        finetune(load_config(FinetuneConfig, file))
