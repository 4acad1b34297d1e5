"""Faults of the disk: full or read-only when something is saved, damaged when it is read."""

from __future__ import annotations

import random
from pathlib import Path

from checkpoint_box import original
from small_disk import disk, freeze, on_disk
from trials import Fault, Trial, outcome


def full_rows(rng: random.Random, folder: Path) -> str:
    """Files of rows on a full disk: the old file stays, or the new one is whole."""
    from tiny import make_producer

    from mixup_hf.data.row_files import mixed_json
    from mixup_hf.data.row_formats import read_records
    from mixup_hf.data.row_writer import RowWriter

    producer = make_producer(8, 3)
    rows = producer.produce(0, 8)
    made = [mixed_json(row, producer.texts, ("a", "b", "c")) for row in rows]
    kib, suffix = rng.choice([4, 8, 16, 64, 256]), rng.choice(["jsonl", "csv", "parquet"])
    pieces = rng.choice([1, 5, 20, 80])
    with disk(folder / "disk", kib) as place:
        file = place / f"rows.{suffix}"
        file.write_text("")

        def write() -> None:
            with RowWriter(file, run={"a": 1}) as writer:
                for _ in range(pieces):
                    writer.write(made)

        end = on_disk(write)
        if end == "accepted" and len(list(read_records(file))) != 8 * pieces:
            raise Fault("rows are missing from a file that was written")
        # The rows may have fitted, and the settings beside them no more.
        if file.stat().st_size and len(list(read_records(file))) != 8 * pieces:
            raise Fault("half a file under its final name")
    return end


def full_pool(rng: random.Random, folder: Path) -> str:
    """Rows of the pool on a full disk: all there, or none."""
    from tiny import make_producer

    from mixup_hf.data.rows import has_rows, open_rows, save_rows

    rows = make_producer(24, 3).produce(0, 24) * rng.choice([1, 4, 40])
    with disk(folder / "disk", rng.choice([4, 8, 16, 128, 1024])) as place:
        end = on_disk(lambda: save_rows(place / "rows", rows))
        if has_rows(place / "rows") != (end == "accepted"):
            raise Fault("rows that are half there")
        if end == "accepted" and list(open_rows(place / "rows")) != rows:
            raise Fault("other rows than were saved")
        left = [each.name for each in place.rglob("*partial*")]
        if left:
            raise Fault(f"left behind: {left}")
    return end


def full_checkpoint(rng: random.Random, folder: Path) -> str:
    """An aligner saved on a full disk: refused, or it loads again."""
    from mixup_hf.inverter.checkpoint import load_aligner, save_checkpoint

    aligner = load_aligner(original() / "aligner")
    with disk(folder / "disk", rng.choice([4, 8, 12, 16, 64])) as place:
        end = on_disk(lambda: save_checkpoint(place / "aligner", aligner, None))
        if end == "accepted":
            load_aligner(place / "aligner")
        elif outcome(lambda: load_aligner(place / "aligner"))[0] == "accepted":
            raise Fault("half an aligner is read as a whole one")
    return end


def full_store(rng: random.Random, folder: Path) -> str:
    """The store of sentences on a full or read-only disk: the run goes on without it."""
    from mixup_hf.generation.cache import SentenceStore

    kib = rng.choice([8, 32, 64, 200, None])
    with disk(folder / "disk", kib) as place:
        store = SentenceStore(place / "store", {"a": 1})
        if kib is None:
            if rng.random() < 0.5:
                store.put(store.key(n=0), ["first"])
                store.close()
            freeze(place)
        for number in range(rng.choice([5, 60])):
            texts = [f"{number} " + "word " * rng.randrange(600)]
            store.put(store.key(n=number), texts)
            found = store.get(store.key(n=number))
            if found not in (None, texts) and found != ["first"]:
                raise Fault("other sentences than were stored")
        store.close()
    return "went on"


def damaged_store(rng: random.Random, folder: Path) -> str:
    """A store with damaged bytes: its sentences are right, or decoded again."""
    from mixup_hf.generation.cache import SentenceStore

    store = SentenceStore(folder, {"a": 1})
    known = {store.key(n=n): [f"{n} " + "word " * rng.randrange(300)] for n in range(30)}
    for key, texts in known.items():
        store.put(key, texts)
    store.close()
    for name in ("sentences.sqlite", "sentences.sqlite-wal"):
        file = folder / name
        if file.is_file() and file.stat().st_size:
            _damage(rng, file, 0.3, [1, 20, 2000])
    lost = 0
    for key, texts in known.items():
        found = store.get(key)
        lost += found is None
        if found not in (None, texts):
            raise Fault(f"{texts[0][:30]!r} came back as {str(found)[:60]!r}")
    store.put("new", ["x"])
    store.close()
    return "went on" if lost else "accepted"


def damaged_pool(rng: random.Random, folder: Path) -> str:
    """A checkpoint whose rows or state are damaged: refused, or they are what they were."""
    from tiny import make_producer

    from mixup_hf.data.rows import open_rows, save_rows
    from mixup_hf.training.checkpointing import Saved

    rows = make_producer(24, 3).produce(0, 24)
    save_rows(folder, rows)
    Saved({"a": 1}, {(0, 1): 2}, 0, 5).write(folder)  # type: ignore[arg-type]
    file = folder / rng.choice(["rows.arrow", "state.json"])
    _damage(rng, file, 0.4, [1, 4, 40])
    return outcome(lambda: (list(open_rows(folder)), Saved.read(folder)))[0]


def _damage(rng: random.Random, file: Path, cut: float, counts: list[int]) -> None:
    """Cut a file off with probability `cut`, and change as many of its bytes as one of `counts`."""
    content = bytearray(file.read_bytes())
    if rng.random() < cut:
        content = content[: rng.randrange(len(content))]
    for _ in range(rng.choice(counts)):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    file.write_bytes(content)


TRIALS: tuple[Trial, ...] = (
    full_rows,
    full_pool,
    full_checkpoint,
    full_store,
    damaged_store,
    damaged_pool,
)
