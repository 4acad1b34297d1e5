"""Sentences for alignment: read, filtered, embedded once."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixup_hf import errors
from mixup_hf.data.unlabeled_files import read_texts
from mixup_hf.inverter.encoder import FrozenEncoder

_LONGEST_LINE = 1_000_000  # characters; a compressed file can unpack to any size
_TABLES = (".csv", ".json", ".jsonl", ".parquet")
_FILE_ENDINGS = (*_TABLES, ".gz", ".tsv", ".txt")


def read_sentences(
    source: str, *, text_column: str, min_words: int, max_words: int, limit: int
) -> list[str]:
    """Read up to `limit` sentences of `min_words` to `max_words` words.

    Args:
        source: A text file (one sentence a line), the same with `.gz`, a folder of such files, a
            csv, jsonl or parquet file, or a Hub data set id (its `train` split).
        text_column: Column to read from a table or a Hub data set.
        min_words: Shortest sentence kept.
        max_words: Longest sentence kept.
        limit: Reading stops there.

    Raises:
        FileNotFoundError: A path that does not exist.
        ValueError: Nothing is left after filtering.
    """
    lines = _hub_lines(source, text_column) if _is_hub_id(source) else None
    stripped = (line.strip() for line in lines or _local_lines(Path(source), text_column))
    fitting = (line for line in stripped if min_words <= len(line.split()) <= max_words)
    sentences = list(islice(fitting, limit))
    if not sentences:
        raise errors.InvalidInput(_nothing_left(source, min_words, max_words))
    return sentences


def read_with_origins(
    source: str,
    origins: str | None,
    *,
    text_column: str,
    min_words: int,
    max_words: int,
    limit: int,
) -> tuple[list[str], list[str] | None]:
    """As `read_sentences`, with the origin of each sentence from a file beside it.

    Args:
        source: As for `read_sentences`; a file when `origins` is given.
        origins: A text file (or `.gz`) whose line i names the origin of line i of `source`; None
            returns no origins.
        text_column: As for `read_sentences`.
        min_words: As for `read_sentences`.
        max_words: As for `read_sentences`.
        limit: As for `read_sentences`.

    Raises:
        ValueError: The two files have not the same number of lines.
    """
    bounds = {"min_words": min_words, "max_words": max_words, "limit": limit}
    if origins is None:
        return read_sentences(source, text_column=text_column, **bounds), None
    rows: list[tuple[str, str]] = []
    for line, name in zip_longest(
        _local_lines(Path(source), text_column), _file_lines(Path(origins))
    ):
        if line is None or name is None:
            raise errors.InvalidInput(
                f"`origins` = {origins!r} must have one line for each of `data` = {source!r}, but "
                "their lengths differ. Give the file that belongs to it."
            )
        if min_words <= len(line.split()) <= max_words:
            rows.append((line.strip(), name.strip()))
        if len(rows) == limit:
            break
    if not rows:
        raise errors.InvalidInput(_nothing_left(source, min_words, max_words))
    return [text for text, _ in rows], [name for _, name in rows]


def _nothing_left(source: str, min_words: int, max_words: int) -> str:
    return (
        f"`data` = {source!r} holds no sentence of {min_words} to {max_words} words. Change "
        "`min_words` and `max_words`, or give one sentence a line."
    )


def _is_hub_id(source: str) -> bool:
    """Whether `source` is `user/name`, and neither a path that exists nor one that was mistyped."""
    path = Path(source)
    named_a_file = path.suffix in _FILE_ENDINGS or source[0] in "./~\\" or path.parent.is_dir()
    return not path.exists() and source.count("/") == 1 and not named_a_file


def _local_lines(path: Path, text_column: str) -> Iterator[str]:
    endings = [each.lower() for each in path.suffixes[-2:]]
    is_table = path.suffix in _TABLES and path.is_file()
    if path.is_file() and not is_table and {*endings} & {*_TABLES, ".tsv"}:
        raise errors.bad(
            "data",
            f"be text with one sentence a line, or a table that ends in {', '.join(_TABLES)}",
            str(path),
            "Every line of this one would be a sentence. Convert or unpack it, or rename it.",
        )
    return iter(read_texts(path, text_column)) if is_table else _file_lines(path)


def _file_lines(path: Path) -> Iterator[str]:
    if not path.exists():
        raise errors.MissingFile(
            f"`data` = {str(path)!r} is neither an existing file or folder nor a Hub id "
            "(user/name). Check the path."
        )
    files = [path] if path.is_file() else sorted(path.glob("sentences*.txt*"))
    if not files:
        raise errors.MissingFile(
            f"`data` = {str(path)!r} contains no sentences*.txt or sentences*.txt.gz."
        )
    for file in files:
        yield from _lines_of(file)


def _lines_of(file: Path) -> Iterator[str]:
    opener: Any = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8-sig") as stream:
            while line := stream.readline(_LONGEST_LINE):
                if len(line) == _LONGEST_LINE:
                    raise errors.InvalidInput(
                        f"{file} has a line of more than {_LONGEST_LINE - 1:,} characters. Give "
                        "one sentence a line."
                    )
                yield line
    except UnicodeDecodeError as error:
        raise errors.InvalidInput(f"{file} is not text in UTF-8 ({error}). Convert it.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise errors.InvalidInput(
            f"{file} cannot be unpacked ({error}). It is cut short or damaged: fetch it again."
        ) from error


def _hub_lines(source: str, text_column: str) -> Iterator[str]:
    from datasets import load_dataset

    for row in load_dataset(source, split="train", streaming=True):
        yield row[text_column]


def cached_embeddings(
    sentences: list[str],
    encoder: FrozenEncoder,
    encoder_fingerprint: str,
    cache: Path,
    *,
    bf16: bool = False,
) -> np.ndarray:
    """Embeddings (N, D) of `sentences`, float16, memory-mapped from `cache` and made there once.

    The file's name is a digest of the sentences, of the encoder and of all that decides how it
    embeds, so a changed input is never read from an old file; a killed run leaves no file under
    that name.

    Args:
        sentences: N texts.
        encoder: Embeds them.
        encoder_fingerprint: Digest of its weights and tokenizer.
        cache: The folder.
        bf16: Embed under bf16 autocast: an embedding keeps a cosine of 0.9999 to itself, at 1.6
            times the speed.
    """
    how = (
        encoder_fingerprint,
        encoder.pooling,
        encoder.normalize,
        encoder.prefix,
        encoder.max_length,
        str(encoder.model.dtype),
        bf16,
    )
    digest = hashlib.sha256(f"{how!r}\n".encode())
    for sentence in sentences:
        digest.update(sentence.encode() + b"\n")
    path = cache / f"embeddings-{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".partial-{os.getpid()}.npy")
        with torch.autocast(encoder.model.device.type, torch.bfloat16, bf16):
            embeddings = encoder.encode(sentences)
        np.save(partial, embeddings.numpy().astype(np.float16))
        os.replace(partial, path)
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped
