"""Which of the plugin's texts a training row is, found by its text or its tokens."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixup_hf.data.text_pairs import split_sides
from mixup_hf.training.batch_checks import tokens_of
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.preprocess import TokenizerPreprocess, features_of

_SAMPLE_SIZE = 32
_ENCODED_AT_ONCE = 4096
_OVERLAP = 0.8  # of the shorter row's tokens; a template or a truncation leaves at least that
_MORE = 0.2  # of its text, beyond which a row holds something else, too


@dataclass
class Sample:
    """Rows of the Trainer's training set, and which of the plugin's texts they are.

    Attributes:
        positions: In the training set (S).
        rows: The features (S).
        matches: For each row, the plugin's texts that it may be; none if it is not among them.
        tokens: Tokens of each row, without padding; empty where rows hold texts.
        encoded: Tokens of the plugin's texts in these places; empty if the orders differ.
    """

    positions: list[int]
    rows: list[Mapping[str, Any]]
    matches: list[list[int]]
    tokens: list[list[int]]
    encoded: list[list[int]]
    collator: MixupCollator

    def shown(self, row: Mapping[str, Any]) -> str:
        """A row as a person reads it, shortened."""
        text = row.get(self.collator.text_column)
        if text is None:
            text = str(self.collator.tokenizer.decode(tokens_of(row), skip_special_tokens=True))
        return text if len(text) <= 80 else text[:77] + "..."


def sample_rows(
    dataset: Any,
    texts: Sequence[str],
    collator: MixupCollator,
    agrees: Callable[[Mapping[str, Any], int], bool],
) -> Sample | None:
    """Look some 32 rows of the training set up among the plugin's texts, the longest among them.

    Usually both are in the same order, so only the sample is tokenized. Else all texts are.

    Args:
        dataset: The training set.
        texts: The plugin's texts (N).
        collator: Its preprocessing makes tokens from texts.
        agrees: Whether a row has the label of a text: tokens alone need not decide.

    Returns:
        None if rows hold neither texts nor tokens.
    """
    count = min(_SAMPLE_SIZE, len(dataset))
    spread = {at * (len(dataset) - 1) // max(1, count - 1) for at in range(count)}
    positions = sorted(spread | _longest(dataset))
    rows = [dataset[at] for at in positions]
    if not all(isinstance(row, Mapping) for row in rows):
        return None
    column = collator.text_column
    if all(isinstance(row.get(column), str) for row in rows):
        return _by_text(positions, rows, texts, collator)
    made = features_of(collator.preprocess, texts[:1])
    if not all("input_ids" in row for row in [*rows, *made]):
        return None
    return _by_tokens(positions, rows, texts, collator, agrees)


def _by_text(
    positions: list[int],
    rows: list[Mapping[str, Any]],
    texts: Sequence[str],
    collator: MixupCollator,
) -> Sample:
    first, second = collator.text_column, collator.text_pair_column
    paired = len(split_sides(texts[0])) > 1
    places: dict[Hashable, list[int]] = defaultdict(list)
    for at, text in enumerate(texts):
        places[split_sides(text)].append(at)
    wanted = [(row[first], row.get(second)) if paired else (row[first],) for row in rows]
    matches = [places.get(key, []) for key in wanted]
    tokens = [tokens_of(row) for row in rows] if all("input_ids" in row for row in rows) else []
    encoded: list[list[int]] = []
    if tokens and all(matches) and "input_ids" in features_of(collator.preprocess, texts[:1])[0]:
        encoded = _encode([texts[at[0]] for at in matches], collator)
    return Sample(positions, rows, matches, tokens, encoded, collator)


def _longest(dataset: Any) -> set[int]:
    """Where the row with most tokens is in a `datasets.Dataset`: it shows where rows are cut."""
    import pyarrow.compute
    from datasets import Dataset

    if not isinstance(dataset, Dataset) or "input_ids" not in dataset.column_names:
        return set()
    before = random.getstate()  # `datasets` draws names for what it makes
    tokens = dataset.select_columns(["input_ids"]).with_format("arrow")[:].column("input_ids")
    random.setstate(before)
    return {int(np.argmax(pyarrow.compute.list_value_length(tokens).to_numpy()))}


def _by_tokens(
    positions: list[int],
    rows: list[Mapping[str, Any]],
    texts: Sequence[str],
    collator: MixupCollator,
    agrees: Callable[[Mapping[str, Any], int], bool],
) -> Sample:
    tokens = [tokens_of(row) for row in rows]
    same_order = None
    if positions[-1] < len(texts):
        encoded = _encode([texts[at] for at in positions], collator)
        special = set(collator.tokenizer.all_special_ids)
        if all(_alike(*pair, special) for pair in zip(tokens, encoded, strict=True)):
            places = [[at] for at in positions]
            same_order = Sample(positions, rows, places, tokens, encoded, collator)
            if all(map(agrees, rows, positions)):
                return same_order
    matches = _search(tokens, texts, collator)
    if same_order is not None and not all(matches):
        return same_order
    return Sample(positions, rows, matches, tokens, [], collator)


def _search(
    tokens: list[list[int]], texts: Sequence[str], collator: MixupCollator
) -> list[list[int]]:
    """Where each row's exact tokens are among those of the texts, whatever the order."""
    wanted = {tuple(ids) for ids in tokens}
    found: dict[tuple[int, ...], list[int]] = defaultdict(list)
    length = max(map(len, tokens))
    for at, ids in enumerate(_encode_all(texts, collator, length)):
        key = tuple(ids)
        if key in wanted:
            found[key].append(at)
    return [found.get(tuple(ids), []) for ids in tokens]


def _encode_all(texts: Sequence[str], collator: MixupCollator, length: int) -> Iterator[list[int]]:
    hook = collator.preprocess
    if isinstance(hook, TokenizerPreprocess) and hook.max_length is None:
        hook = TokenizerPreprocess(hook.tokenizer, length)  # rows may be truncated there
    for start in range(0, len(texts), _ENCODED_AT_ONCE):
        for feature in features_of(hook, texts[start : start + _ENCODED_AT_ONCE]):
            yield tokens_of(feature)


def _encode(texts: Sequence[str], collator: MixupCollator) -> list[list[int]]:
    return [tokens_of(feature) for feature in features_of(collator.preprocess, texts)]


def _alike(row: list[int], text: list[int], special: set[int]) -> bool:
    """Whether a row can be this text, perhaps truncated or put into a template."""
    ours = Counter(token for token in text if token not in special)
    theirs = Counter(token for token in row if token not in special)
    shorter = min(ours.total(), theirs.total())
    if shorter == 0:
        return ours.total() == theirs.total()
    return (ours & theirs).total() >= _OVERLAP * shorter


def truncated_at(sample: Sample) -> int | None:
    """The length at which training rows were truncated; None if that is not seen."""
    short = {
        len(row)
        for row, text in zip(sample.tokens, sample.encoded, strict=True)
        if len(row) < len(text)
    }
    longest = max(map(len, sample.tokens), default=0)
    return longest if short == {longest} else None


def first_of_other_text(sample: Sample) -> int | None:
    """The first row whose tokens are not those of its text, if that is so for most rows."""
    special = set(sample.collator.tokenizer.all_special_ids)
    pairs = zip(sample.tokens, sample.encoded, strict=bool(sample.encoded))
    other = [at for at, pair in enumerate(pairs) if not _alike(*pair, special)]
    return other[0] if 2 * len(other) > len(sample.rows) else None


def first_with_more(sample: Sample) -> int | None:
    """The first row that holds far more than its text, if most rows do.

    What all rows have at their ends is a template, and not counted.
    """
    special = set(sample.collator.tokenizer.all_special_ids)
    ends = sum(max(0, len(real) - len(made)) for _, real, made in common_ends(sample))

    def words(tokens: list[int]) -> int:
        return sum(token not in special for token in tokens)

    lengths = [tuple(map(words, pair)) for pair in zip(sample.tokens, sample.encoded, strict=True)]
    more = [at for at, (row, text) in enumerate(lengths) if row - ends - text > 1 + _MORE * text]
    return more[0] if 2 * len(more) > len(sample.rows) else None


def common_ends(sample: Sample) -> Iterator[tuple[str, list[int], list[int]]]:
    """Prefix and suffix that all training rows share, where those of generated rows differ.

    Yields:
        "start" or "end"; the tokens of training rows; the tokens of the same texts as the plugin's
        preprocessing encodes them.
    """
    if len(sample.rows) < 2:
        return
    for where, step in (("start", 1), ("end", -1)):
        real = _common([row[::step] for row in sample.tokens])
        generated = _common([row[::step] for row in sample.encoded])
        firsts = [row[::step][:1] for row in sample.tokens]
        if len(real) > len(generated) or (generated and generated[:1] not in firsts):
            yield where, real[::step], generated[::step]


def _common(rows: list[list[int]]) -> list[int]:
    shared = []
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared
