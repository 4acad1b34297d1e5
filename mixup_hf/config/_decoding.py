"""What generated texts may be like: form, length, names. Fields of `MixupConfig`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

Match = Literal["match", "free"]
NovelNames = Literal["allow", "forbid"]
OwnTexts = Literal["auto", "off"]

FORM: Any = Field(
    default="match",
    description=(
        "Whether sentences get the form of the training texts: match cuts off a second sentence, "
        "spells without capitals or a full stop, and regenerates what is a question, breaks off or "
        "repeats itself, all where nearly no training text does (with intrusion keep or off it is "
        "only counted); free takes sentences as they come."
    ),
)
LENGTH: Any = Field(
    default=None,
    description=(
        "Whether sentences get the lengths of the training texts: match ends each near the length "
        "of one of its parents, where the LLM finds an end likely; free leaves it to the LLM. By "
        "default match, but free on a vLLM server, which cannot choose lengths."
    ),
)
NOVEL_NAMES: Any = Field(
    default="allow",
    description=(
        "Whether sentences may have names and numbers that none of their parents has; forbid "
        "regenerates them, and uses the parent where no redraw helps."
    ),
)
NUM_CANDIDATES: Any = Field(
    default=1,
    ge=1,
    description="Sentences decoded per mix; the one closest to the mix is kept.",
)
CORRECTIONS: Any = Field(
    default=0,
    ge=0,
    description=(
        "How often a mix is decoded again, moved by what its closest sentence so far lacks; the "
        "closest is kept. Each costs as much as a candidate."
    ),
)
CLOSE_ENOUGH: Any = Field(
    default=None,
    gt=0,
    le=1,
    description=(
        "Cosine to its mix at which a sentence is not decoded again, with several candidates or "
        "corrections. By default every one is."
    ),
)
OWN_TEXTS: Any = Field(
    default="auto",
    description=(
        "Whether the aligner is first trained on over the training texts, so that sentences get "
        "their length and style: auto does so with 300 or more texts of 2 to 20 words (200 "
        "characters at most), at least half of all, unless held-out ones gain nothing; once for "
        "the same texts, in a minute or two on CPUs. Not with pairs, source task or a vLLM server."
    ),
)
