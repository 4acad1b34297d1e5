"""Alignment batches: about the same token count each for the LLM, words for the lexicon."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors

IGNORED = -100
_FEWEST_SENTENCES = 3  # a lexicon could not learn a rarer token


class StackedRows:
    """Views arrays (N, D) and (M, D) as one (N + M, D), without copying the memory-mapped first.

    Args:
        first: Rows 0 to N - 1.
        second: Rows N to N + M - 1.
    """

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), self.first.shape[1]), self.first.dtype)
        in_first = rows < len(self.first)
        found[in_first] = self.first[rows[in_first]]
        found[~in_first] = self.second[rows[~in_first] - len(self.first)]
        return found


class TokenBudgetBatches(Dataset[dict[str, Tensor]]):
    """A map-style dataset whose items are whole batches of about `batch_tokens` positions.

    Rows of similar length share a batch, so there is almost no padding. The Trainer shuffles,
    shards and resumes over items, with batch size 1 and `unwrap` as its collator. An item contains

    - `embeddings` (B, D), float32;
    - `input_ids` (B, T), padded on the right with the end token;
    - `labels` (B, T + 1): the sentence and its end token, `IGNORED` at padding.

    Args:
        sentences: N texts.
        embeddings: (N, D).
        tokenizer: The LLM's tokenizer.
        prompt_length: Number of positions before the sentence; these count toward the budget.
        batch_tokens: Positions per batch, including prompt and padding.
        end_id: The token that ends a sentence.
        seed: Determines which sentences share a batch.
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
        errors.at_least("batch_tokens", batch_tokens, 64)
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
        # A random key breaks ties, so each batch mixes sentences from across the corpus.
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

    An item contains

    - `embeddings` (B, D), float32;
    - `rows` and `words`, both (W,): sentence `rows[i]` of the batch contains word `words[i]`. Each
      word is listed once per sentence.

    Args:
        sentences: N texts.
        embeddings: (N, D).
        tokenizer: The LLM's tokenizer.
        num_words: How many of the most frequent tokens become words. Tokens that occur in fewer
            than three sentences are excluded.
        token_ids: The words to use instead (V',), if the lexicon already has a vocabulary.
        batch_size: Sentences per batch.
        seed: Determines which sentences share a batch.

    Attributes:
        token_ids: Token ids of the words (V',), in ascending order.
        sentence_counts: Number of sentences each word occurs in (V',).
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
        errors.at_least("num_words", num_words, 1)
        found = tokenizer(sentences, add_special_tokens=False)["input_ids"]
        present = [np.unique(np.asarray(ids, dtype=np.int64)) for ids in found]
        counts = np.bincount(np.concatenate(present), minlength=len(tokenizer))
        if token_ids is None:
            frequent = np.argsort(-counts, kind="stable")[:num_words]
            chosen = np.sort(frequent[counts[frequent] >= _FEWEST_SENTENCES])
        else:
            chosen = token_ids.numpy()
        if not len(chosen):
            raise errors.bad(
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
    """Collator for batch size 1: the item is already a batch."""
    (batch,) = items
    return batch
