"""How the sentences read beside the real ones: variety, length, and what they copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

from mixup_hf import errors


@dataclass(frozen=True)
class TextQuality:
    """Figures of a set of texts.

    Attributes:
        texts: How many.
        unique: Share of them that no earlier one equals.
        distinct_1, distinct_2: Different words, and pairs of words, per word and pair. They fall
            with the number of words, so sets are compared at `words` words each.
        words: How many words `distinct_1` and `distinct_2` were counted on.
        mean_words: Mean length.
    """

    texts: int
    unique: float
    distinct_1: float
    distinct_2: float
    words: int
    mean_words: float


def text_quality(texts: Sequence[str], *, words: int | None = None) -> TextQuality:
    """Figures of `texts`; variety is counted on the first `words` words. Default: all."""
    split = [text.lower().split() for text in texts]
    total = sum(map(len, split))
    words = min(total, words or total)
    head = list(_first(split, words))
    singles = [word for each in head for word in each]
    doubles = [pair for each in head for pair in pairwise(each)]
    return TextQuality(
        texts=len(texts),
        unique=len(set(texts)) / max(1, len(texts)),
        distinct_1=len(set(singles)) / max(1, len(singles)),
        distinct_2=len(set(doubles)) / max(1, len(doubles)),
        words=words,
        mean_words=total / max(1, len(texts)),
    )


def matched_quality(one: Sequence[str], other: Sequence[str]) -> tuple[TextQuality, TextQuality]:
    """Figures of both, their variety counted on as many words of each."""
    words = min(text_quality(one).words, text_quality(other).words)
    return text_quality(one, words=words), text_quality(other, words=words)


def self_bleu(texts: Sequence[str], words: int) -> float:
    """Mean BLEU-2 (0 to 1) of each text against all others (Zhu et al. 2018, arXiv 1802.01886).

    Args:
        texts: At least two.
        words: Texts are cut to so many words: longer ones share more by chance.
    """
    errors.need("sacrebleu")
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(effective_order=True, max_ngram_order=2, tokenize="none", lowercase=True)
    cut = [" ".join(text.split()[:words]) for text in texts]
    scores = [
        metric.sentence_score(text, cut[:at] + cut[at + 1 :]).score for at, text in enumerate(cut)
    ]
    return sum(scores) / len(scores) / 100


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
