"""Scores of texts by their words: how similar two are, how varied a set is, what it copies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from mixup_hf import errors

_WORD = re.compile(r"\w+")


def token_f1(candidate: str, reference: str) -> float:
    """F1 of the two sentences' tokens as bags, lower-cased: 1 for the same tokens in any order.

    Tokens are BLEU's own (13a): words, and punctuation apart from them, as in vec2text (arXiv
    2310.06816).
    """
    return _bag_f1(_tokenizer()(candidate.lower()).split(), _tokenizer()(reference.lower()).split())


def word_f1(candidate: str, reference: str) -> float:
    """`token_f1` over words alone: punctuation does not count."""
    return _bag_f1(_WORD.findall(candidate.lower()), _WORD.findall(reference.lower()))


def mean_token_f1(candidates: Sequence[str], references: Sequence[str]) -> float:
    """Mean `token_f1` over pairs."""
    return float(np.mean([token_f1(*pair) for pair in zip(candidates, references, strict=True)]))


def rouge_l(candidate: str, reference: str) -> float:
    """ROUGE-L F-measure (rouge-score): the longest common subsequence of words, 0 to 1."""
    return float(_rouge().score(reference, candidate)["rougeL"].fmeasure)


def bleu(candidates: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU (sacrebleu), 0 to 100."""
    sacrebleu = errors.optional("sacrebleu", "stats", "BLEU")
    return float(sacrebleu.corpus_bleu(list(candidates), [list(references)]).score)


@dataclass(frozen=True)
class Variety:
    """Length and variety of a set of texts.

    Attributes:
        texts: How many.
        unique: Share of distinct texts.
        distinct_1, distinct_2: Distinct words, and bigrams, as a share of all. Both fall with the
            number of words, so sets are compared at `words` words each.
        words: How many words `distinct_1` and `distinct_2` were counted on.
        mean_words: Mean length.
    """

    texts: int
    unique: float
    distinct_1: float
    distinct_2: float
    words: int
    mean_words: float


def variety(texts: Sequence[str], *, words: int | None = None) -> Variety:
    """Measure `texts`; distinct words are counted on the first `words` words. Default: all."""
    split = [text.lower().split() for text in texts]
    total = sum(map(len, split))
    words = min(total, words or total)
    head = list(_first(split, words))
    singles = [word for each in head for word in each]
    doubles = [pair for each in head for pair in pairwise(each)]
    return Variety(
        texts=len(texts),
        unique=len(set(texts)) / max(1, len(texts)),
        distinct_1=len(set(singles)) / max(1, len(singles)),
        distinct_2=len(set(doubles)) / max(1, len(doubles)),
        words=words,
        mean_words=total / max(1, len(texts)),
    )


def matched_variety(one: Sequence[str], other: Sequence[str]) -> tuple[Variety, Variety]:
    """Measure two sets of texts, counting distinct words on as many words of each."""
    words = min(variety(one).words, variety(other).words)
    return variety(one, words=words), variety(other, words=words)


def self_bleu(texts: Sequence[str], words: int) -> float:
    """Mean BLEU-2 (0 to 1) of each text against all others (Zhu et al. 2018, arXiv 1802.01886).

    Args:
        texts: At least two.
        words: Texts are cut to so many words: longer ones share more by chance.
    """
    bleu_of = errors.optional("sacrebleu.metrics.bleu", "stats", "Self-BLEU").BLEU
    metric = bleu_of(effective_order=True, max_ngram_order=2, tokenize="none", lowercase=True)
    cut = [" ".join(text.split()[:words]) for text in texts]
    scores = [
        metric.sentence_score(text, cut[:at] + cut[at + 1 :]).score for at, text in enumerate(cut)
    ]
    return float(sum(scores) / len(scores) / 100)


def copied_share(text: str, parents: Iterable[str]) -> float:
    """Length of the longest run of words shared with a parent, as a share of the text's words."""
    words = text.lower().split()
    matchers = [SequenceMatcher(None, words, each.lower().split(), False) for each in parents]
    longest = max((matcher.find_longest_match().size for matcher in matchers), default=0)
    return longest / max(1, len(words))


def _first(split: Sequence[list[str]], words: int) -> Iterable[list[str]]:
    for each in split:
        if words <= 0:
            return
        yield each[:words]
        words -= len(each)


@cache
def _rouge() -> Any:
    scorer = errors.optional("rouge_score.rouge_scorer", "stats", "ROUGE")
    return scorer.RougeScorer(["rougeL"], use_stemmer=False)


@cache
def _tokenizer() -> Any:
    module = errors.optional("sacrebleu.tokenizers.tokenizer_13a", "stats", "Token F1")
    return module.Tokenizer13a()


def _bag_f1(left: list[str], right: list[str]) -> float:
    shared = sum((Counter(left) & Counter(right)).values())
    return 2 * shared / (len(left) + len(right)) if left and right else 0.0
