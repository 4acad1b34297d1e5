from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Thread

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


WRITER = """
import sys
from mixup_hf.generation.cache import SentenceStore
store = SentenceStore(sys.argv[1], {})
for turn in range(100_000):
    store.put(f"{sys.argv[2]} {turn}", [f"sentence {turn}"] * 20)
    print(turn, flush=True)
"""


def writer(folder: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name], stdout=subprocess.PIPE, text=True
    )


def test_a_kill_loses_at_most_the_last_batch(tmp_path: Path) -> None:
    processes = [writer(tmp_path, name) for name in ("one", "two")]
    done = []
    for process in processes:
        assert process.stdout is not None
        done.append([int(process.stdout.readline()) for _ in range(20)])
        process.kill()
        process.wait()
    store = open_store(tmp_path)
    for name, turns in zip(("one", "two"), done, strict=True):
        for turn in turns:
            assert store.get(f"{name} {turn}") == [f"sentence {turn}"] * 20
    store.put("next", BATCH)
    assert store.get("next") == BATCH


@pytest.mark.parametrize("damage", ["bytes", "text"])
def test_a_damaged_database_is_set_aside(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)
    store.put("key", BATCH)
    store.close()
    (file,) = tmp_path.glob("*.sqlite")
    if damage == "bytes":
        file.write_bytes(b"not a database" * 100)
    else:
        with sqlite3.connect(file) as database:
            database.execute("UPDATE batches SET texts = '[\"cut'")
        database.close()
    again = open_store(tmp_path)
    assert again.get("key") is None
    assert "is damaged" in caplog.text
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
    again.put("key", ["decoded again"])
    assert open_store(tmp_path).get("key") == ["decoded again"]


def test_the_batches_used_longest_ago_go_when_the_store_is_full(tmp_path: Path) -> None:
    store = SentenceStore(tmp_path, {}, megabytes=0.01)
    for turn in range(9):
        store.put(f"key {turn}", ["x" * 980])
    assert store.get("key 0") is not None  # used again
    for turn in range(9, 12):
        store.put(f"key {turn}", ["x" * 980])
    held = [turn for turn in range(12) if store.get(f"key {turn}") is not None]
    assert 0 in held and 11 in held
    assert 1 not in held and 2 not in held
    assert len(held) <= 10
    store.put("too large", ["x" * 20_000])
    assert store.get("too large") is None
    assert store.get("key 11") is not None


def test_a_store_crosses_threads_and_forks(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put("main", BATCH)
    thread = Thread(target=store.put, args=("thread", BATCH))
    thread.start()
    thread.join()
    if (child := os.fork()) == 0:
        store.put("fork", BATCH)
        os._exit(0)
    os.waitpid(child, 0)
    assert [store.get(key) for key in ("main", "thread", "fork")] == [BATCH] * 3


def test_a_store_that_cannot_be_written_stops_the_caching_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a file").touch()
    plain = made(stored(tmp_path / "plain"))
    with caplog.at_level(logging.WARNING):
        producer = stored(tmp_path / "a file" / "in the way")
        assert made(producer) == plain
    assert caplog.text.count("cannot be cached") == 1
    assert "MIXUP_HF_CACHE" in caplog.text


def test_a_size_limit_is_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cache_megabytes"):
        SentenceStore(tmp_path, {}, megabytes=0)


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


def test_sentences_with_the_parents_words_are_kept_apart(tmp_path: Path) -> None:
    made(stored(tmp_path))
    hinted = stored(tmp_path)
    hinted.hints = "parents"
    hinted.invert = lambda mixes, seed, parents: [f"near {len(each)}" for each in parents]
    assert made(hinted) == ["near 2"] * 10
    assert hinted.reused == 0
    plain = stored(tmp_path)
    assert made(plain) == made(make_producer())
    assert plain.reused == 10


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    killed = stored(tmp_path)
    killed.chunk(0, 0, 10)  # chunks of four; then it dies
    again = stored(tmp_path)
    assert made(again) == made(make_producer())
    assert (again.decoded, again.reused) == (6, 4)
