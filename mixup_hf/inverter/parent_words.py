"""Hints from the parents' own words: `hints: parents`.

An embedding says what a text is about, and hardly ever which names and nouns it says it with: the
lexicon names half of a sentence's words. When a mix is decoded its parents are known, so their
words can be hinted too. A word counts by the shares of the parents it occurs in, and by how likely
the lexicon finds it for the mix: a word of the lighter parent, or one that does not fit, gives way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixup_hf import errors
from mixup_hf.inverter.aligner import Aligner
from mixup_hf.inverter.lexicon import Lexicon

Hints = Literal["embedding", "parents"]
HINTS: tuple[Hints, ...] = ("embedding", "parents")
# One mix: its parents' texts, each with its share.
Parents = Sequence[tuple[str, float]]

# Nats by which a word of every parent is preferred over what the lexicon finds likely.
STRENGTH = 9.0
# Too frequent to be hints, but they make a question: "what", "who".
_QUESTION_WORDS = frozenset(
    "how what when where which who whom whose why ?".split()  # noqa: SIM905 - as one reads it
)


class ParentWords:
    """Finds the words of parents' texts in a lexicon.

    Args:
        lexicon: Its words are tokens of the LLM.
        tokenizer: The LLM's.

    Attributes:
        token_ids: The lexicon's words (V',), as tokens.
        hintable: Which of them may be hints (V',): all but common words that ask nothing.
    """

    def __init__(self, lexicon: Lexicon, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._num_words = len(lexicon.token_ids)
        self._known = frozenset(lexicon.token_ids.tolist())
        ids = lexicon.token_ids.tolist()
        common = lexicon.common.tolist()
        texts = tokenizer.batch_decode([[each] for each in ids])
        self._places = {
            token: place
            for place, (token, text) in enumerate(zip(ids, texts, strict=True))
            if not common[place] or text.strip().lower() in _QUESTION_WORDS
        }

        self.token_ids: Tensor = lexicon.token_ids
        self.hintable = torch.zeros(self._num_words, dtype=torch.bool)
        self.hintable[list(self._places.values())] = True

    @classmethod
    def of(cls, aligner: Aligner, tokenizer: PreTrainedTokenizerBase) -> ParentWords:
        """For an aligner.

        Raises:
            InvalidInput: It gives no hints.
        """
        if aligner.hints is None:
            raise errors.bad(
                "hints",
                "be 'embedding' with an aligner that was trained without hints",
                "parents",
                "The aligner 'embedded' has hints.",
            )
        return cls(aligner.hints.lexicon, tokenizer)

    def preferred(self, parents: Sequence[Parents]) -> Tensor:
        """How far each mix's parents speak for each word: (B, V'), float32, in nats.

        Args:
            parents: Of B mixes, each with its parents' texts and their shares; negative shares,
                of mixes beyond a parent, count as none.
        """
        found = torch.zeros(len(parents), self._num_words)
        for row, share, tokens in self._tokens(parents):
            found[row, [self._places[each] for each in tokens if each in self._places]] += share
        return STRENGTH * found.clamp_max(1.0)

    def pieces(self, parents: Sequence[Parents], vocabulary: int) -> Tensor:
        """The same for tokens that are no word of the lexicon, of names mostly: (B, V) nats."""
        found = torch.zeros(len(parents), vocabulary)
        for row, share, tokens in self._tokens(parents):
            found[row, [each for each in tokens if each not in self._known]] += share
        return STRENGTH * found.clamp_max(1.0)

    def _tokens(self, parents: Sequence[Parents]) -> Iterator[tuple[int, float, list[int]]]:
        """Row, share, and tokens of every parent, each token once."""
        for row, mix in enumerate(parents):
            for text, share in mix:
                # Within a sentence, and as its first word: the tokens differ by the space.
                both = self._tokenizer([f" {text}", text], add_special_tokens=False)["input_ids"]
                yield row, max(0.0, share), sorted({each for ids in both for each in ids})
