"""Sentences for alignment: read, filtered, embedded once, cut into batches of equal token count."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from mixup_hf import _checks
from mixup_hf.encoders import FrozenEncoder

if TYPE_CHECKING:
    from mixup_hf.align.joined import StackedRows

IGNORED = -100
_FEWEST_SENTENCES = 3  # a rarer token is no word a lexicon could learn


def read_sentences(
    source: str, *, text_column: str, min_words: int, max_words: int, limit: int
) -> list[str]:
    """Read up to `limit` sentences of `min_words` to `max_words` words.

    Args:
        source: A text file (one sentence a line), the same with `.gz`, a folder of such files, or a
            Hub data set id (its `train` split).
        text_column: Column to read from a Hub data set.
        min_words: Shortest sentence kept.
        max_words: Longest sentence kept.
        limit: Reading stops there.

    Raises:
        FileNotFoundError: A path that does not exist.
        ValueError: Nothing is left after filtering.
    """
    lines = _hub_lines(source, text_column) if _is_hub_id(source) else _file_lines(Path(source))
    stripped = (line.strip() for line in lines)
    fitting = (line for line in stripped if min_words <= len(line.split()) <= max_words)
    sentences = list(islice(fitting, limit))
    if not sentences:
        raise ValueError(_nothing_left(source, min_words, max_words))
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
    for line, name in zip_longest(_file_lines(Path(source)), _file_lines(Path(origins))):
        if line is None or name is None:
            raise ValueError(
                f"`origins` = {origins!r} must have one line for each of `data` = {source!r}, but "
                "one ends before the other. Give the file that belongs to it."
            )
        if min_words <= len(line.split()) <= max_words:
            rows.append((line.strip(), name.strip()))
        if len(rows) == limit:
            break
    if not rows:
        raise ValueError(_nothing_left(source, min_words, max_words))
    return [text for text, _ in rows], [name for _, name in rows]


def _nothing_left(source: str, min_words: int, max_words: int) -> str:
    return (
        f"`data` = {source!r} holds no sentence of {min_words} to {max_words} words. Change "
        "`min_words` and `max_words`, or give one sentence a line."
    )


def _is_hub_id(source: str) -> bool:
    return not Path(source).exists() and source.count("/") == 1 and not source.endswith(".gz")


def _file_lines(path: Path) -> Iterator[str]:
    if not path.exists():
        raise FileNotFoundError(f"`data` = {str(path)!r} is neither a file, a folder nor a Hub id.")
    files = [path] if path.is_file() else sorted(path.glob("sentences*.txt*"))
    if not files:
        raise FileNotFoundError(f"`data` = {str(path)!r} holds no file sentences*.txt or .txt.gz.")
    for file in files:
        opener: Any = gzip.open if file.suffix == ".gz" else open
        with opener(file, "rt", encoding="utf-8") as stream:
            yield from stream


def _hub_lines(source: str, text_column: str) -> Iterator[str]:
    from datasets import load_dataset

    for row in load_dataset(source, split="train", streaming=True):
        yield row[text_column]


def cached_embeddings(
    sentences: list[str], encoder: FrozenEncoder, encoder_fingerprint: str, cache: Path
) -> np.ndarray:
    """Embeddings (N, D) of `sentences`, float16, memory-mapped from `cache` and made there once.

    The file's name is a digest of the sentences and the encoder, so a changed input is never read
    from an old file; a killed run leaves no file under that name.
    """
    digest = hashlib.sha256(f"{encoder_fingerprint}:{encoder.pooling}:{encoder.normalize}".encode())
    for sentence in sentences:
        digest.update(sentence.encode() + b"\n")
    path = cache / f"embeddings-{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".partial-{os.getpid()}.npy")
        np.save(partial, encoder.encode(sentences).numpy().astype(np.float16))
        os.replace(partial, path)
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


class TokenBudgetBatches(Dataset[dict[str, Tensor]]):
    """A map-style data set whose items are whole batches of about `batch_tokens` positions.

    Rows of like length share a batch, so almost nothing is padding. The Trainer shuffles, shards
    and resumes over items, with batch size 1 and `unwrap` as its collator. An item holds

    - `embeddings` (B, D), float32;
    - `input_ids` (B, T), padded on the right with the end token;
    - `labels` (B, T + 1): the sentence and its end token, `IGNORED` at padding.

    Args:
        sentences: N texts.
        embeddings: (N, D).
        tokenizer: The LLM's.
        prompt_length: Positions before the sentence, counted against the budget.
        batch_tokens: Positions per batch, prompt and padding included.
        end_id: The token that ends a sentence.
        seed: Which sentences share a batch.
    """

    def __init__(
        self,
        sentences: list[str],
        embeddings: np.ndarray | StackedRows,
        tokenizer: PreTrainedTokenizerBase,
        *,
        prompt_length: int,
        batch_tokens: int,
        end_id: int,
        seed: int,
    ) -> None:
        _checks.at_least("batch_tokens", batch_tokens, 64)
        self.embeddings = embeddings
        self.end_id = end_id
        self.token_ids: list[list[int]] = tokenizer(sentences, add_special_tokens=False)[
            "input_ids"
        ]
        self.batches = self._cut(prompt_length, batch_tokens, np.random.default_rng(seed))
        self.num_sentences = len(sentences)
        self.rows_per_batch = len(sentences) / len(self.batches)
        tokens = sum(map(len, self.token_ids)) + len(sentences)
        self.tokens_per_batch = tokens / len(self.batches)

    def _cut(
        self, prompt_length: int, batch_tokens: int, rng: np.random.Generator
    ) -> list[np.ndarray]:
        lengths = np.array([len(ids) for ids in self.token_ids]) + prompt_length
        # A random key breaks ties, so that a batch mixes sentences from all over the corpus.
        order = np.lexsort((rng.random(len(lengths)), lengths))
        batches, start = [], 0
        for stop in range(1, len(order) + 1):
            is_last = stop == len(order)
            if is_last or lengths[order[stop]] * (stop + 1 - start) > batch_tokens:
                batches.append(order[start:stop])
                start = stop
        return batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rows = self.batches[index]
        width = max(len(self.token_ids[row]) for row in rows)
        ids = torch.full((len(rows), width), self.end_id)
        labels = torch.full((len(rows), width + 1), IGNORED)
        for line, row in enumerate(rows):
            tokens = torch.tensor(self.token_ids[row])
            ids[line, : len(tokens)] = tokens
            labels[line, : len(tokens)] = tokens
            labels[line, len(tokens)] = self.end_id
        vectors = np.asarray(self.embeddings[np.sort(rows)], dtype=np.float32)
        back = np.argsort(np.argsort(rows))  # memory maps read fastest in ascending order
        return {"embeddings": torch.from_numpy(vectors[back]), "input_ids": ids, "labels": labels}


class WordBatches(Dataset[dict[str, Tensor]]):
    """Whole batches of embeddings with the words of their sentences, to train a lexicon.

    An item holds

    - `embeddings` (B, D), float32;
    - `rows` and `words`, both (W,): sentence `rows[i]` of the batch has word `words[i]`, each word
      of a sentence once.

    Args:
        sentences: N texts.
        embeddings: (N, D).
        tokenizer: The LLM's.
        num_words: How many of the most frequent tokens become words; those of fewer than three
            sentences never do.
        token_ids: The words instead (V',), for a lexicon that has them already.
        batch_size: Sentences per batch.
        seed: Which sentences share a batch.

    Attributes:
        token_ids: The token ids of the words (V',), ascending.
        sentence_counts: In how many sentences each occurs (V',).
    """

    def __init__(
        self,
        sentences: list[str],
        embeddings: np.ndarray | StackedRows,
        tokenizer: PreTrainedTokenizerBase,
        *,
        num_words: int,
        token_ids: Tensor | None = None,
        batch_size: int = 512,
        seed: int,
    ) -> None:
        _checks.at_least("num_words", num_words, 1)
        found = tokenizer(sentences, add_special_tokens=False)["input_ids"]
        present = [np.unique(np.asarray(ids, dtype=np.int64)) for ids in found]
        counts = np.bincount(np.concatenate(present), minlength=len(tokenizer))
        if token_ids is None:
            frequent = np.argsort(-counts, kind="stable")[:num_words]
            chosen = np.sort(frequent[counts[frequent] >= _FEWEST_SENTENCES])
        else:
            chosen = token_ids.numpy()
        if not len(chosen):
            raise _checks.bad(
                "sentences",
                f"share some word between {_FEWEST_SENTENCES} of them",
                f"{len(sentences)} sentences",
            )
        self.token_ids = torch.from_numpy(chosen)
        self.sentence_counts = torch.from_numpy(counts[chosen])
        position = np.full(len(counts), -1)
        position[chosen] = np.arange(len(chosen))
        self.words = [(known := position[ids])[known >= 0] for ids in present]
        self.embeddings = embeddings
        order = np.random.default_rng(seed).permutation(len(sentences))
        self.batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
        self.rows_per_batch = len(sentences) / len(self.batches)
        self.tokens_per_batch = sum(map(len, self.words)) / len(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        lines = np.sort(self.batches[index])  # memory maps read fastest in ascending order
        words = [self.words[line] for line in lines]
        rows = np.repeat(np.arange(len(lines)), [len(each) for each in words])
        vectors = np.asarray(self.embeddings[lines], dtype=np.float32)
        return {
            "embeddings": torch.from_numpy(vectors),
            "rows": torch.from_numpy(rows),
            "words": torch.from_numpy(np.concatenate(words)),
        }


def unwrap(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Collator for batch size 1: the item is the batch already."""
    (batch,) = items
    return batch
