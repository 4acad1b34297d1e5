"""What a text alone shows: where its sentences end, loops, loose ends, questions, names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
# A sentence ends here, and another one begins.
_BOUNDARY = re.compile(r"(?:(?<=[!?])|(?<=[^.]\.))[\"'”’)\]]*\s+(?=[\"'“‘(\[]*(\w))")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|v|No|Vol|Inc|Ltd|Co|Gen|Sen|Rep|Gov|Lt|Col|Capt|etc|e\.g"
    r"|i\.e|approx|Rev|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)|\b[A-Za-z])\.$",
    re.IGNORECASE,
)
_CLOSED = re.compile(r"[.!?…][\"'”’)\]]*$")
_QUESTION = re.compile(r"\?[\"'”’)\]]*$")
_LOOSE = re.compile(r"(?:[,:;(\[/&–—-]|\.\.\.|…|\s[.!?])[\"'”’]*$")
# Three numbers in a row, with nothing but punctuation between: "2004, 2005, 2006".
_NUMBERS = re.compile(r"\b\d[\d.,]*(?:\s*(?:,|;|-|–|and|or|,\s*and)\s*\d[\d.,]*\b){2,}")
_OPENING = re.compile(r"^[\"'“‘(\[]*")


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# Words that no sentence ends with: what they announce is missing.
_ANNOUNCING = _words(
    "a an the and or but nor of to from with without into onto by for as than if because while "
    "whose my our their very is are was were be been has have had will would can could should must "
    "may might does did i'm it's that's there's he's she's"
)
# Words that may come often without being a loop.
_COMMON = _ANNOUNCING | _words(
    "in on at it its he she his they we you your i that this these those not no so who what which "
    "when where how there here up out am do s t"
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text; a full stop after an abbreviation or an initial ends none.

    Each begins with a capital letter or a number, unless the text has no capitals at all.
    """
    parts, start, lower = [], 0, text == text.lower()
    for found in _BOUNDARY.finditer(text):
        closing = text[start : found.start()]
        starts = lower or not found[1].islower()
        if not starts or (closing.endswith(".") and _ABBREVIATION.search(closing)):
            continue
        parts.append(text[start : found.end()].strip())
        start = found.end()
    return [*parts, text[start:].strip()]


def is_question(text: str) -> bool:
    """Whether a text ends with a question mark."""
    return _QUESTION.search(text.rstrip()) is not None


def is_closed(text: str) -> bool:
    """Whether a text ends with a full stop, a question mark or the like."""
    return _CLOSED.search(text.rstrip()) is not None


def is_unfinished(text: str) -> bool:
    """Whether a text breaks off: after a comma, an article or another word that announces more."""
    words = _WORD.findall(text.lower())
    last = words[-1].replace("’", "'") if words else ""
    # "What is it for?" and "He knows what they are." end well; no question ends with an article.
    ends_open = last in _ANNOUNCING and not (is_closed(text) and last not in ("a", "an", "the"))
    unpaired = text.count("(") > text.count(")") or text.count('"') % 2 == 1
    return ends_open or unpaired or _LOOSE.search(text.rstrip()) is not None


def is_loop(text: str) -> bool:
    """Whether a text says the same again and again, or only counts on."""
    words = _WORD.findall(text.lower())
    content = Counter(word for word in words if word not in _COMMON and len(word) > 1)
    if content and max(content.values()) >= 3:
        return True
    named = [word for word in words if not word.isdigit()]
    if any(one == other and one not in _COMMON for one, other in pairwise(named)):
        return True
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    if triples and max(triples.values()) >= 2:
        return True
    pairs = Counter(pair for pair in pairwise(words) if not _COMMON.issuperset(pair))
    repeated = sum(count - 1 for count in pairs.values())
    return repeated >= 2 or _NUMBERS.search(text) is not None


def names(text: str) -> list[str]:
    """Capitalized words and numbers; a first word counts only if it is more than capitalized."""
    found = []
    for sentence in split_sentences(text):
        first = len(_OPENING.match(sentence)[0])  # type: ignore[index]  # matches the empty string
        for match in _WORD.finditer(sentence):
            word = match[0]
            inner = any(letter.isupper() or letter.isdigit() for letter in word[1:])
            named = word[0].isdigit() or inner or (word[0].isupper() and match.start() > first)
            if named and word not in ("I", "I'm", "I'll", "I've", "I'd"):
                found.append(word)
    return found


def novel_names(text: str, parents: Sequence[str]) -> list[str]:
    """The names and numbers of a text that none of its parents has, whatever their case."""
    known = {_bare(word) for parent in parents for word in _WORD.findall(parent)}
    known |= {part for word in known for part in word.split("-")}
    return [word for word in names(text) if _bare(word) not in known]


def _bare(word: str) -> str:
    """Lower case, without the `'s` of a genitive."""
    return re.sub(r"['’](?:s)?$", "", word.lower())
