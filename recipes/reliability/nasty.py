"""Nasty texts, labels, values and files, drawn from a generator."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

PLAIN = ("bank profit market", "team win the match", "new phone software", "court tax law")
TEXTS = (
    "",
    " ",
    "\n\t",
    "\x00",
    "a\x00b",
    "\ud83d",
    "a\udfff",
    "👩‍👩‍👧‍👦 🏳️‍🌈",
    "שלום עולם",
    "مرحبا",
    "\u202egnol\u202c",
    "e\u0301" * 40,
    "Z\u0351\u036b\u0343\u036a" * 20,
    "\ufeffbank",
    "\x1e",
    "bank\x1emarket",
    "line\u2028separator\x85next",
    "a,b;c\td",
    'quote " and \' and ""',
    "a\r\nb\rc\n\nd",
    "NA",
    "nan",
    "None",
    "null",
    "true",
    "0",
    "007",
    "-1e5",
    "1_000",
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "{{ 7*7 }} {% raw %}",
    "${HOME} $(id) `id`",
    "%s%n%x",
    "{0} {name}",
    "\\u0000 \\x1e \\",
    "[bold red]x[/]",
    "../../etc/passwd",
    "<eos> [PAD] [MASK] <|endoftext|>",
    "𝕳𝖊𝖑𝖑𝖔",
    "ﷺ" * 30,
    "\u200b\u200d",
    "１２３",
    "x" * 5_000,
    "word " * 3_000,
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63),
    10**400,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    "0",
    "nan",
    "\ud800",
    b"bytes",
    [],
    [None],
    [1, "a"],
    [[[]]],
    {},
    {"a": {"b": []}},
    (1, 2),
    {1, 2},
    object(),
    1j,
)
LABELS: tuple[Any, ...] = (
    "a",
    "b",
    "c",
    0,
    1,
    2,
    "0",
    "a ",
    "A",
    "",
    "👩",
    0.0,
    1.5,
    -1,
    "a" * 999,
)
ENCODINGS = (
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-32",
    "latin-1",
    "cp1252",
    "shift_jis",
)


def text(rng: random.Random, nasty: float = 0.5) -> str:
    """A text: plain words, or from the corpus, or random characters."""
    roll = rng.random()
    if roll > nasty:
        return " ".join(rng.choice(PLAIN) for _ in range(rng.randint(1, 3))) + f" {rng.random()}"
    if roll < nasty / 50:
        return "million " * 125_000
    if roll < nasty * 0.7:
        return rng.choice(TEXTS)
    points = [rng.choice([rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000)])]
    points += [rng.randrange(0x250) for _ in range(rng.randrange(30))]
    return "".join(map(chr, points))


def value(rng: random.Random) -> Any:
    """Anything, of any type."""
    return rng.choice(VALUES) if rng.random() < 0.7 else rng.choice(TEXTS)


def plain_value(rng: random.Random) -> Any:
    """Anything that JSON has."""
    while True:
        found = value(rng)
        try:
            json.dumps(found)
        except (TypeError, ValueError):
            continue
        return found


def encodable(text_: str) -> bool:
    """Whether a text can be written to a file at all."""
    try:
        text_.encode()
    except UnicodeEncodeError:
        return False
    return True


def rows(rng: random.Random, nasty: float) -> tuple[list[str], list[Any]]:
    """Texts and labels of a table."""
    count = rng.choice([1, 2, 4, 8, 8, 12, 40])
    kinds = rng.choice([("a", "b"), ("a", "b", "c"), (0, 1), LABELS])
    texts = [text(rng, nasty) for _ in range(count)]
    return texts, [rng.choice(kinds) if row > 1 else kinds[row] for row in range(count)]


def table_file(
    rng: random.Random, folder: Path, nasty: float
) -> tuple[Path, list[str], list[Any]] | None:
    """A well-formed file with texts and labels, and what it holds; None if they fit no file."""
    texts, labels = rows(rng, nasty)
    if not all(map(encodable, texts)):
        return None
    kind = rng.choice(["csv", "jsonl", "json", "parquet"])
    file = folder / f"table.{kind}"
    if kind == "csv":
        with file.open("w", encoding=rng.choice(["utf-8", "utf-8-sig"]), newline="") as stream:
            quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
            writer = csv.writer(stream, quoting=quoting)
            writer.writerows([("text", "label"), *zip(texts, labels, strict=True)])
        return file, texts, labels
    records = [{"text": t, "label": each} for t, each in zip(texts, labels, strict=True)]
    if kind == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        try:
            parquet.write_table(pa.Table.from_pylist(records), file)
        except (pa.ArrowException, TypeError):  # labels of several types
            return None
    elif kind == "json":
        file.write_text(json.dumps(records, ensure_ascii=rng.random() < 0.5), encoding="utf-8")
    else:
        lines = [json.dumps(each, ensure_ascii=rng.random() < 0.5) for each in records]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file, texts, labels


def broken_file(rng: random.Random, folder: Path, suffixes: tuple[str, ...]) -> Path:
    """A file that is not what its suffix says, or that is cut, of another encoding, or huge."""
    suffix = rng.choice(suffixes)
    file = folder / f"broken{suffix}"
    lines = [json.dumps({"text": f"bank {at}", "label": "ab"[at % 2]}) for at in range(8)]
    good = ("\n".join(lines) + "\n").encode()
    if suffix == ".csv":
        good = b"text,label\n" + b"".join(b"bank %d,%c\n" % (at, 97 + at % 2) for at in range(8))
    if suffix == ".txt":
        good = b"".join(b"bank profit market %d\n" % at for at in range(60))
    how = rng.randrange(14)
    if how == 0:
        good = rng.randbytes(rng.choice([1, 100, 10_000]))
    elif how == 1:
        good = good[: rng.randrange(len(good))]
    elif how == 2:
        good = good.decode().replace("bank", "bänk").encode(rng.choice(ENCODINGS), "replace")
    elif how == 3:
        good = b""
    elif how == 4:
        good = b"\n" * 50 + b" \n"
    elif how == 5:
        good = good.replace(b"bank", b"ba\x00nk")
    elif how == 6:
        good = good.replace(b"bank 3", b"x" * rng.choice([140_000, 1_200_000]))
    elif how == 7:
        good = b"[" * rng.choice([100, 5_000, 200_000]) + good
    elif how == 8:
        good = b'{"text": ' + b'{"a": ' * 3_000 + b"1" + b"}" * 3_000 + b', "label": 1}\n'
    elif how == 9:
        good = good.replace(b'"label": "a"', b'"label": ' + b"9" * 5_000)
        good = good.replace(b'"label": "b"', b'"label": NaN')
    elif how == 10:
        good = good.replace(b"label", b"text")  # a column twice
    elif how == 11:
        good = good.replace(
            b"\n", b"\n" + rng.choice([b"{}\n", b"1\n", b"null\n", b"a,b,c,d\n"]), 3
        )
    elif how == 12:
        good = bytes(rng.randrange(256) if rng.random() < 0.02 else each for each in good)
    else:
        good = good.replace(b"\n", rng.choice([b"\r", b"\r\n", b"\n\r", b"\x0b"]))
    file.write_bytes(good)
    return file


def as_csv(records: list[dict[str, Any]]) -> str:
    """Generated rows as `mixup-hf augment` writes them to csv."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(records[0]))
    writer.writeheader()
    for record in records:
        plain = {k: v if isinstance(v, str) else json.dumps(v) for k, v in record.items()}
        writer.writerow(plain)
    return stream.getvalue()
