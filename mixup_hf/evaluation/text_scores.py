"""How alike two sentences are, word for word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
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
    """The same over words alone: a full stop that is right earns nothing."""
    return _bag_f1(_WORD.findall(candidate.lower()), _WORD.findall(reference.lower()))


def mean_token_f1(candidates: Sequence[str], references: Sequence[str]) -> float:
    """Mean `token_f1` over pairs."""
    return float(np.mean([token_f1(*pair) for pair in zip(candidates, references, strict=True)]))


def rouge_l(candidate: str, reference: str) -> float:
    """ROUGE-L F-measure (rouge-score): the longest common subsequence of words, 0 to 1."""
    return float(_rouge().score(reference, candidate)["rougeL"].fmeasure)


def bleu(candidates: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU (sacrebleu), 0 to 100."""
    errors.need("sacrebleu")
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(candidates), [list(references)]).score)


@cache
def _rouge() -> Any:
    errors.need("rouge_score")
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)


@cache
def _tokenizer() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    kind: Any = Tokenizer13a
    return kind()


def _bag_f1(left: list[str], right: list[str]) -> float:
    shared = sum((Counter(left) & Counter(right)).values())
    return 2 * shared / (len(left) + len(right)) if left and right else 0.0
