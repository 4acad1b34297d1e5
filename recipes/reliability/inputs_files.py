"""Nasty files: tables, unlabelled texts, sentences for alignment, generated rows."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import nasty
from tiny_inverter import check_rows, good_rows
from trials import Fault, Trial, outcome

NAMES, SINGLE_LABEL = ("a", "b", "c"), "single_label_classification"


def tables(rng: random.Random, folder: Path) -> str:
    """Good files with odd texts and labels: read as they were written, or refused."""
    from mixup_hf.data.tables import read_table

    made = nasty.table_file(rng, folder, rng.choice([0.0, 0.3, 0.8]))
    if made is None:
        return "not written"
    file, texts, labels = made
    end, found = outcome(lambda: read_table(file, "text", "label"))
    if end == "accepted":
        if found.texts != texts:
            pairs = zip(found.texts, texts, strict=False)
            read, was = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
            raise Fault(f"{file.suffix}: {read!r:.80} was written as {was!r:.80}")
        if len(set(map(str, found.labels))) != len(set(map(str, labels))):
            raise Fault(f"{file.suffix}: {set(labels)} were read as {set(found.labels)}")
    return end


def broken_tables(rng: random.Random, folder: Path) -> str:
    """Files that are damaged: refused, or read as strings with labels."""
    from mixup_hf.data.tables import read_table

    file = nasty.broken_file(rng, folder, (".csv", ".jsonl", ".json", ".parquet"))
    end, found = outcome(lambda: read_table(file, "text", "label"))
    if end == "accepted" and not all(
        isinstance(text, str) and text.strip() for text in found.texts
    ):
        raise Fault(f"texts that are none: {found.texts[:3]!r:.300}")
    return end


def unlabeled(rng: random.Random, folder: Path) -> str:
    """Unlabelled texts, from lines or from tables."""
    from mixup_hf.data.unlabeled_files import read_texts

    file = nasty.broken_file(rng, folder, (".csv", ".jsonl", ".txt", ".parquet"))
    end, found = outcome(lambda: read_texts(file))
    if end == "accepted" and not all(isinstance(text, str) and text.strip() for text in found):
        raise Fault(f"texts that are none: {found[:3]!r:.300}")
    return end


def sentences(rng: random.Random, folder: Path) -> str:
    """Sentences for alignment: text files, compressed ones, and zip bombs."""
    from mixup_hf.align.data import read_with_origins

    file = nasty.broken_file(rng, folder, (".txt",))
    origins = None
    if rng.random() < 0.5:
        content = gzip.compress(file.read_bytes())
        how = rng.randrange(4)
        if how == 0:
            content = content[: rng.randrange(len(content))]
        elif how == 1:
            content = content[:-9] + rng.randbytes(9)
        elif how == 2:
            content = gzip.compress(b"x" * 300_000_000, 1)
        file = file.with_suffix(".txt.gz")
        file.write_bytes(content)
    elif rng.random() < 0.3:
        origins = str(nasty.broken_file(rng, folder, (".txt",)))
    bounds = {"min_words": 1, "max_words": 20, "limit": 50}
    end, found = outcome(
        lambda: read_with_origins(str(file), origins, text_column="text", **bounds)
    )
    if end == "accepted" and not all(text.strip() and len(text) < 10**6 for text in found[0]):
        raise Fault("sentences that are none")
    return end


def row_files(rng: random.Random, folder: Path) -> str:
    """Generated rows with values they must not have: refused, or read as rows to train on."""
    from datasets import Dataset

    from mixup_hf.data.row_files import read_mixed, read_shown

    texts, records = good_rows()
    for _ in range(rng.randint(1, 3)):
        record = rng.choice(records)
        column = rng.choice(sorted(record))
        if isinstance(record[column], dict) and record[column] and rng.random() < 0.6:
            record[column][rng.choice(sorted(record[column]))] = nasty.plain_value(rng)
        elif rng.random() < 0.2:
            del record[column]
        else:
            record[column] = nasty.plain_value(rng)
    kind = rng.choice(["jsonl", "csv", "dataset"])
    source: Any = folder / f"rows.{kind}"
    if kind == "jsonl":
        source.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    elif kind == "csv":
        try:
            source.write_text(nasty.as_csv(records), encoding="utf-8")
        except ValueError:  # rows of different columns, or what UTF-8 has no bytes for
            return "not written"
    else:
        try:
            source = Dataset.from_list(records)
        except Exception:
            return "not written"
    end, found = outcome(lambda: read_mixed(source, texts, NAMES, SINGLE_LABEL))
    if end == "accepted":
        check_rows(found, texts, 6, 3)
    if kind != "dataset":
        outcome(lambda: read_shown(source))
    return end


def broken_rows(rng: random.Random, folder: Path) -> str:
    """Damaged files of generated rows, and damaged settings beside them."""
    from mixup_hf.data.row_files import read_mixed, read_shown
    from mixup_hf.data.row_formats import run_file

    texts, records = good_rows()
    file = nasty.broken_file(rng, folder, (".csv", ".jsonl", ".parquet"))
    if rng.random() < 0.5:
        content = "".join(json.dumps(each) + "\n" for each in records).encode()
        if file.suffix == ".csv":
            content = nasty.as_csv(records).encode()
        spoilt = bytearray(content)
        for _ in range(rng.randint(0, 4)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        file.write_bytes(spoilt)
    if rng.random() < 0.5:
        beside = nasty.broken_file(rng, folder, (".json",))
        beside.rename(run_file(file))
    end, found = outcome(lambda: read_mixed(file, texts, NAMES, SINGLE_LABEL))
    if end == "accepted":
        check_rows(found, texts, len(found), 3)
    outcome(lambda: read_shown(file))
    return end


def generated(rng: random.Random, folder: Path) -> str:
    """Rows of any JSON, as hypothesis generates and shrinks it."""
    from hypothesis import HealthCheck, given, seed
    from hypothesis import settings as examples
    from hypothesis import strategies as st

    from mixup_hf.data.row_files import read_mixed

    texts, records = good_rows(1)
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    anything = st.recursive(
        plain, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8
    )
    columns = st.dictionaries(st.sampled_from(sorted(records[0])), anything, max_size=3)
    file = folder / "rows.jsonl"

    @seed(rng.randrange(10**9))
    @examples(max_examples=25, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(columns)
    def check(changes: dict[str, Any]) -> None:
        file.write_text(json.dumps(records[0] | changes) + "\n", encoding="utf-8")
        end, found = outcome(lambda: read_mixed(file, texts, NAMES, SINGLE_LABEL))
        if end == "accepted":
            check_rows(found, texts, 1, 3)

    check()
    return "25 examples"


TRIALS: tuple[Trial, ...] = (
    tables,
    broken_tables,
    unlabeled,
    sentences,
    row_files,
    broken_rows,
    generated,
)
