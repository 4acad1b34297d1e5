"""The form of a training set's texts, and what is wrong with the form of a generated one.

What nearly no training text does, no generated text should do: have a second sentence, ask a
question, break off, repeat itself. What a share of them does as well is no fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mixup_hf.data.text_pairs import MARK, split_sides
from mixup_hf.judging import sentences
from mixup_hf.judging.events import LOOP, NOVEL_NAME, OTHER_KIND, SECOND_SENTENCE, UNFINISHED
from mixup_hf.types import MixedExample

RARE = 0.05  # share of the training texts up to which something is no part of their form
_MEASURED = 2000  # texts that the form is measured on, evenly spread over larger sets
_LEAST_WORDS = 2  # that a text is cut to
_STOP = re.compile(r"(?<!\.)\.([\"'”’)\]]*)$")


@dataclass(frozen=True)
class TextForm:
    """The form of one column of texts.

    Attributes:
        one_sentence: Nearly all have one sentence.
        asks: Nearly all are questions (True), nearly none (False), or some (None).
        closed: Nearly all end with a full stop or the like (True), nearly none (False), or some.
        lower: Nearly none has a capital letter.
        finished: Nearly none seems to break off.
        loops: Some repeat themselves.
        least_words: Words that nearly all of them have.
    """

    one_sentence: bool
    asks: bool | None
    closed: bool | None
    lower: bool
    finished: bool
    loops: bool
    least_words: int

    @classmethod
    def of(cls, texts: Sequence[str]) -> TextForm:
        """Measure texts (N), or some of them."""
        texts = texts[:: -(-len(texts) // _MEASURED)]

        def share(has: Callable[[str], bool]) -> float:
            return sum(map(has, texts)) / len(texts)

        return cls(
            one_sentence=share(lambda text: len(sentences.split_sentences(text)) > 1) <= RARE,
            asks=_nearly(share(sentences.is_question)),
            closed=_nearly(share(sentences.is_closed)),
            lower=share(lambda text: text != text.lower()) <= RARE,
            finished=share(sentences.is_unfinished) <= RARE,
            loops=share(sentences.is_loop) > RARE,
            least_words=int(np.quantile([len(text.split()) for text in texts], RARE)),
        )

    def cut(self, text: str) -> str:
        """The first sentence that is long enough to stand alone; the text itself if none is."""
        if not self.one_sentence:
            return text
        least = max(_LEAST_WORDS, self.least_words - 1)
        parts = sentences.split_sentences(text)
        return next((part for part in parts if len(part.split()) >= least), text)

    def spelled(self, text: str) -> str:
        """Without capitals, or without a full stop at the end, where training texts have none."""
        if self.closed is False:
            text = _STOP.sub(r"\1", text.rstrip()) or text
        return text.lower() if self.lower else text

    def events(self, text: str) -> tuple[str, ...]:
        """What is wrong with the form of a text."""
        question = sentences.is_question(text)
        found = {
            SECOND_SENTENCE: self.one_sentence and len(sentences.split_sentences(text)) > 1,
            LOOP: not self.loops and sentences.is_loop(text),
            UNFINISHED: self.finished and self._breaks_off(text),
            OTHER_KIND: self.asks is not None and question != self.asks,
        }
        return tuple(name for name, is_so in found.items() if is_so)

    def _breaks_off(self, text: str) -> bool:
        unclosed = self.closed is True and not sentences.is_closed(text)
        short = len(text.split()) < self.least_words - 1
        return unclosed or short or sentences.is_unfinished(text)


class TextCheck:
    """Gives generated texts the form of a training set's, and finds what is wrong with them.

    Args:
        texts: The training texts (N); of pairs, each side has a form of its own.
        form: Whether the form matters.
        names: Whether names and numbers that no parent has are an event.
        unlabeled: Unlabelled texts (M) that may be parents.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        form: bool = True,
        names: bool = False,
        unlabeled: Sequence[str] = (),
    ) -> None:
        self._texts, self._names, self._unlabeled = texts, names, unlabeled
        columns = zip(*map(split_sides, texts), strict=True) if form else ()
        self.sides = tuple(TextForm.of(column) for column in columns)

    @property
    def asks(self) -> bool:
        """Whether some of the training texts are questions, or it does not matter."""
        return not self.sides or any(side.asks is not False for side in self.sides)

    def repaired(self, text: str) -> tuple[str, bool]:
        """A text in the form of the training texts, and whether sentences were cut off for it."""
        if not self.sides:
            return text, False
        given = split_sides(text)
        cut = [form.cut(side) for form, side in zip(self.sides, given, strict=True)]
        spelled = [form.spelled(side) for form, side in zip(self.sides, cut, strict=True)]
        return MARK.join(spelled), cut != list(given)

    def events(self, row: MixedExample) -> tuple[str, ...]:
        """What is wrong with the text of a row that is repaired."""
        found = [
            name
            for form, side in zip(self.sides, split_sides(row.text), strict=False)
            for name in form.events(side)
        ]
        if self._names and novel_names(row, self._texts, self._unlabeled):
            found.append(NOVEL_NAME)
        return tuple(dict.fromkeys(found))


def novel_names(
    row: MixedExample, texts: Sequence[str], unlabeled: Sequence[str] = ()
) -> list[str]:
    """The names and numbers in a row's text that are in none of its parents.

    Args:
        row: A generated row.
        texts: The training texts (N), which hold its parents.
        unlabeled: Unlabelled texts (M) that may be parents, too.
    """
    if row.unlabeled_parents and not unlabeled:
        return []  # some of its parents' texts are not at hand
    known = [texts[parent] for parent in row.parents]
    known += [unlabeled[parent] for parent in row.unlabeled_parents]
    parents = [side for text in known for side in split_sides(text)]
    return [name for side in row.sides for name in sentences.novel_names(side, parents)]


def _nearly(share: float) -> bool | None:
    """Whether nearly all or nearly none; None in between."""
    return None if RARE < share < 1 - RARE else share > RARE
