"""What `form`, `length` and `novel_names` mean for decoding, its cache and the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from attaching import plain_trainer
from tiny import make_inverter, make_rows

from mixup_hf import InversedMixup, Inverter, MixupConfig
from mixup_hf.errors import InvalidInput, InvalidState
from mixup_hf.judging.report import events_line
from mixup_hf.training.mix_settings import (
    decode_settings,
    matches_length,
    parent_lengths,
    sentence_store,
    text_check,
    warn_of_copies,
)

TEXTS, LABELS = make_rows(12)
SERVER = "vllm:http://localhost:1"


def test_lengths_are_matched_by_default_where_the_engine_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inverter = make_inverter()
    assert matches_length(inverter, MixupConfig())
    assert not matches_length(inverter, MixupConfig(length="free"))
    with pytest.raises(InvalidInput, match=r"`length` = 'match' needs an engine .* `length: free`"):
        MixupConfig(engine=SERVER, length="match")
    monkeypatch.setattr(inverter.writer, "matches_length", False, raising=False)
    assert not matches_length(inverter, MixupConfig())
    with pytest.raises(InvalidInput, match=r"`length` = 'match' needs an engine .* `length: free`"):
        matches_length(inverter, MixupConfig(length="match"))


def test_wanted_lengths_are_the_parents_in_tokens_of_the_llm() -> None:
    inverter = make_inverter()
    assert parent_lengths(inverter, MixupConfig(length="free"), TEXTS) is None
    lengths = parent_lengths(inverter, MixupConfig(max_new_tokens=3), TEXTS)
    assert lengths is not None
    counts = [min(3, len(text.split())) for text in TEXTS]
    assert lengths._lengths[:, 0].tolist() == counts


def test_no_text_is_a_question_where_nearly_no_training_text_is() -> None:
    asking = ["where is it?"] * 4
    assert not decode_settings(MixupConfig(), TEXTS).questions
    assert decode_settings(MixupConfig(form="free"), TEXTS).questions
    assert decode_settings(MixupConfig(), [*TEXTS, *asking]).questions


def test_a_check_is_made_where_a_setting_asks_for_one() -> None:
    assert text_check(MixupConfig(form="free"), TEXTS) is None
    strict = text_check(MixupConfig(form="free", novel_names="forbid"), TEXTS)
    assert strict is not None and not strict.sides
    assert text_check(MixupConfig(), TEXTS) is not None


def test_cached_sentences_depend_on_what_ends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    inverter = make_inverter()
    inverter.fingerprint = "f00d"

    def key(texts: Sequence[str] = TEXTS, **settings: Any) -> str:
        config = MixupConfig(**settings)
        store = sentence_store(inverter, config, decode_settings(config, texts))
        assert store is not None
        return store.key()

    free = {"form": "free", "length": "free"}
    keys = [key(), key(form="free"), key(length="free"), key(**free)]
    assert keys[2] == keys[0]  # wanted lengths are part of each request: see test_lengths.py
    assert len(set(keys)) == 3
    tries = [key(corrections=1), key(corrections=1, close_enough=0.9)]
    assert len({keys[0], *tries}) == 3
    assert key(novel_names="forbid") == keys[0]  # decides about sentences, and changes none
    monkeypatch.setattr("mixup_hf.inverter.ending.VERSION", 99)
    assert key() != keys[0]
    assert key(**free) == keys[3]


def test_rows_have_the_lengths_of_their_parents_and_the_log_counts_names() -> None:
    def made(**settings: Any) -> list[int]:
        config = MixupConfig(
            max_new_tokens=24, chunk_size=12, label_source="parents", intrusion="off", **settings
        )
        mixup = InversedMixup(make_inverter(), TEXTS, LABELS, config=config)
        rows = mixup.generate(24)
        assert all(row.mitigation in ("none", "cut") for row in rows)
        return [len(row.text.split()) for row in rows]

    longest = max(len(text.split()) for text in TEXTS)
    assert max(made()) <= longest + 4 < max(made(form="free", length="free"))


def test_the_log_names_rows_with_names_of_no_parent() -> None:
    config = MixupConfig(max_new_tokens=4, label_source="parents", intrusion="off")
    (row, *_) = InversedMixup(make_inverter(), TEXTS, LABELS, config=config).generate(1)

    named = replace(row, text="a bank in Oslo", events=("loop",))
    line = events_line([row, named], TEXTS)
    assert line is not None
    assert "1 of 2 generated sentences were doubtful at first (loop 1)" in line
    assert "1 of 2 generated sentences have names or numbers of no parent" in line
    assert events_line([row], TEXTS) is None


def test_a_sampling_strategy_by_class_needs_rows_of_one_class() -> None:
    from mixup_hf.training.mix_settings import by_index

    names = ["news", "film"]
    assert by_index({"film": 5}, names, "single_label_classification") == {1: 5}
    assert by_index("auto", names, "multi_label_classification") == "auto"
    with pytest.raises(ValueError, match="`sampling_strategy` must be a word or a number unless"):
        by_index({"film": 5}, names, "multi_label_classification")


def test_training_rows_that_repeat_texts_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_copies([f"text {at}" for at in range(19)] + ["Text 3!"])
    assert not caplog.text
    warn_of_copies([f"text {at % 8}" for at in range(10)])
    assert "2 of 10 training rows repeat the text of an earlier one" in caplog.text


@pytest.mark.parametrize(
    "labels", [[0.5 + at for at in range(12)], [[at % 2, 1] for at in range(12)]]
)
def test_texts_are_looked_at_where_no_judge_knows_the_labels(labels: Any) -> None:
    config = MixupConfig(label_source="parents", on_unreadable="off")
    gate = InversedMixup(make_inverter(), TEXTS, labels, config=config)._build_gate()
    assert gate is not None
    assert (gate.policy, gate.check_texts, gate.detector) == ("drop", True, None)


def test_the_aligner_reads_the_training_texts_unless_it_is_told_not_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []
    other = make_inverter()
    other.fingerprint = "f00d+1"

    def trained_on(inverter: Inverter, texts: Sequence[str]) -> Inverter:
        read.extend(texts)
        return other

    monkeypatch.setattr("mixup_hf.training.mix_settings.trained_on", trained_on)
    mixup = InversedMixup(make_inverter(), TEXTS, LABELS, label_source="parents")
    assert read == TEXTS
    assert mixup.inverter is other
    (row,) = mixup.generate(1)
    assert row.aligner_fingerprint == "f00d+1"
    assert mixup._settings()["aligner_fingerprint"] == "f00d+1"
    read.clear()
    given = make_inverter()
    for settings in ({"own_texts": "off"}, {"enabled": False}, {"mix_ratio": 0}):
        assert InversedMixup(given, TEXTS, LABELS, **settings).inverter is given
    task = InversedMixup(given, TEXTS, LABELS, source="task", label_source="parents")
    pairs = [(text, "the market") for text in TEXTS]
    both = InversedMixup(given, pairs, LABELS, label_source="parents")
    assert task.inverter is given and both.inverter is given
    assert read == []


def test_attaching_can_be_repeated_where_that_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    mixup = InversedMixup(make_inverter(), label_source="parents")
    with monkeypatch.context() as patched:
        patched.setattr("mixup_hf.training.mix_settings.trained_on", stop)
        with pytest.raises(KeyboardInterrupt):
            mixup.attach(plain_trainer(tmp_path))
    with pytest.raises(InvalidState, match="no training rows yet"):
        mixup.generate(1)
    assert len(mixup.attach(plain_trainer(tmp_path)).generate(1)) == 1
