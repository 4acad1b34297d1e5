from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tiny import make_producer

from mixup_hf.generation.cache import SentenceStore
from mixup_hf.generation.generator import Producer

BATCH = ["a plain one", "one with a line\u2028separator and \x85 too", 'quotes " and \\']


def open_store(folder: Path, **identity: str) -> SentenceStore:
    return SentenceStore(folder, identity)


def test_a_later_run_finds_what_an_earlier_one_put(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    key = store.key(seed=[1, 2], weights=[[0.5, 0.5]])
    assert store.get(key) is None
    store.put(key, BATCH)
    assert store.get(key) == BATCH
    assert open_store(tmp_path).get(key) == BATCH
    assert open_store(tmp_path).get(store.key(seed=[1, 3], weights=[[0.5, 0.5]])) is None


def test_a_key_is_of_all_that_sentences_depend_on(tmp_path: Path) -> None:
    keys = {
        open_store(tmp_path, **identity).key(**request)
        for identity in ({}, {"engine": "fast:bfloat16"}, {"engine": "fast:float32"})
        for request in ({}, {"seed": [1, 23]}, {"seed": [12, 3]}, {"weights": [0.5]})
    }
    assert len(keys) == 12


def test_two_writers_keep_out_of_each_others_way(tmp_path: Path) -> None:
    one, two = open_store(tmp_path), open_store(tmp_path)
    for turn in range(3):
        one.put(f"one {turn}", [f"from one, {turn}"])
        two.put(f"two {turn}", [f"from two, {turn}"])
    both = open_store(tmp_path)
    for turn in range(3):
        assert both.get(f"one {turn}") == [f"from one, {turn}"]
        assert both.get(f"two {turn}") == [f"from two, {turn}"]


def test_a_kill_at_any_byte_loses_at_most_the_last_batch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path / "whole")
    for turn in range(3):
        store.put(f"key {turn}", [f"sentence {turn}", *BATCH])
    (file,) = (tmp_path / "whole").iterdir()
    content = file.read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
    cut = tmp_path / "cut"
    cut.mkdir()
    for size in range(len(content) + 1):
        (cut / file.name).write_bytes(content[:size])
        caplog.clear()
        again = open_store(cut)
        whole = sum(end <= size for end in ends)
        for turn in range(3):
            expected = [f"sentence {turn}", *BATCH] if turn < whole else None
            assert again.get(f"key {turn}") == expected
        assert ("not written to its end" in caplog.text) == (size not in (0, *ends))


def test_a_batch_after_a_cut_one_is_found(tmp_path: Path) -> None:
    """The cut file is left alone: a new run writes a file of its own."""
    store = open_store(tmp_path)
    store.put("first", BATCH)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    again = open_store(tmp_path)
    assert again.get("first") is None
    again.put("first", ["made again"])
    assert open_store(tmp_path).get("first") == ["made again"]


def test_a_changed_byte_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(tmp_path)
    store.put("key", ["a sentence"])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes().replace(b"a sentence", b"a sentance"))
    assert open_store(tmp_path).get("key") is None
    assert "decoded again" in caplog.text


def test_a_store_that_is_emptied_meanwhile_is_a_miss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)
    store.put("key", BATCH)
    for file in tmp_path.iterdir():
        file.unlink()
    assert store.get("key") is None
    assert "decoded again" in caplog.text


def test_a_full_disk_stops_the_keeping_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    plain = made(stored(tmp_path / "plain"))
    monkeypatch.setattr("os.fsync", full)
    with caplog.at_level(logging.WARNING):
        producer = stored(tmp_path / "full")
        assert made(producer) == plain
    assert caplog.text.count("No space left on device") == 1
    assert "MIXUP_HF_CACHE" in caplog.text


def stored(folder: Path, **settings: int) -> Producer:
    producer = make_producer(**settings)
    producer.store = open_store(folder)
    return producer


def made(producer: Producer, rows: int = 10) -> list[str]:
    return [row.text for row in producer.produce(0, rows)]


def test_a_second_run_decodes_nothing(tmp_path: Path) -> None:
    first, second = stored(tmp_path), stored(tmp_path)
    assert made(first) == made(second) == made(make_producer())
    assert (first.decoded, first.reused) == (10, 0)
    assert (second.decoded, second.reused) == (0, 10)


def test_other_seeds_and_other_weights_are_decoded(tmp_path: Path) -> None:
    made(stored(tmp_path))
    other = stored(tmp_path, seed=1)
    assert made(other) == made(make_producer(seed=1))
    assert other.reused == 0
    bent = stored(tmp_path)
    bent.mix_weights = lambda lams: lams**2
    made(bent)
    assert bent.reused == 0


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    killed = stored(tmp_path)
    killed.chunk(0, 0, 10)  # chunks of four; then it dies
    again = stored(tmp_path)
    assert made(again) == made(make_producer())
    assert (again.decoded, again.reused) == (6, 4)
