"""Whether an aligner can read the training texts: encode, decode, encode again, compare.

The embedded aligner was trained on short English sentences. Texts in another language, of emoji or
much longer decode to sentences that have little to do with them, which nothing else reveals.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from mixup_hf import errors, runtime
from mixup_hf.data.text_pairs import split_sides
from mixup_hf.inverter.model import Inverter
from mixup_hf.runtime import counter_rng

_SAMPLING = 11  # what this stream of random numbers is for; part of its key
SAMPLE = 32  # texts decoded: about five seconds on two CPU cores
# Measured with the embedded aligner (mean cosine, share below `LOW`): English headlines, questions,
# reviews and newsgroup posts 0.52-0.77, 0-6 %; Chinese 0.31, 60 %; German 0.26, 90 %; emoji 0.17,
# 100 %.
LOW = 0.35
GOOD_MEAN = 0.45
_MOST_LOW = 1 / 3
_MOST_FOREIGN = 0.2  # share of letters that are not Latin, or of texts with emoji alone
_MOST_LONG = 1 / 3


@dataclass(frozen=True)
class Readability:
    """How well an aligner reproduces a sample of texts.

    Attributes:
        texts: How many texts were decoded.
        mean: Mean cosine of encode(invert(h)) and h; 1 is perfect.
        cosines: The cosine of each text.
        low_share: Share of texts whose cosine is below `LOW`.
        non_latin: Share of the letters that are not Latin.
        emoji: Share of the texts that contain emoji or no letter at all.
        words: Mean words per text.
        long_share: Share of the texts longer than `max_words`.
        max_words: How many words a generated sentence can have; None if that is not known.
    """

    texts: int
    mean: float
    cosines: tuple[float, ...]
    low_share: float
    non_latin: float
    emoji: float
    words: float
    long_share: float
    max_words: int | None

    @property
    def readable(self) -> bool:
        """Whether the round trip is good enough."""
        return self.mean >= GOOD_MEAN and self.low_share <= _MOST_LOW

    @property
    def causes(self) -> list[str]:
        """What about the texts may explain a poor round trip."""
        found = []
        if self.non_latin > _MOST_FOREIGN:
            found.append(f"{self.non_latin:.0%} of the letters are not Latin")
        if self.emoji > _MOST_FOREIGN:
            found.append(f"{self.emoji:.0%} of the texts contain emoji or no letters")
        if self.long_share > _MOST_LONG:
            found.append(
                f"{self.long_share:.0%} of the texts are longer than the {self.max_words} words "
                "that fit into a generated sentence"
            )
        return found

    @property
    def summary(self) -> str:
        """One line with the figures."""
        line = (
            f"round trip of {self.texts} training texts: mean cosine {self.mean:.2f}, "
            f"{self.low_share:.0%} below {LOW}; {self.words:.0f} words per text"
        )
        return "; ".join([line, *self.causes])

    @property
    def warning(self) -> str:
        """What a user should know; empty if there is nothing."""
        if self.readable and not self.causes:
            return ""
        verdict = (
            "The aligner cannot reproduce these texts, so generated sentences will have little to "
            "do with them"
            if not self.readable
            else "These texts differ from those the aligner was trained on"
        )
        return (
            f"{verdict} ({self.summary}). The embedded aligner reads short English sentences; for "
            "other texts, train one with `mixup-hf align`. `on_unreadable: off` skips this check."
        )

    def accepted(self, *, fail: bool) -> Readability:
        """These figures, once they have been printed, or a poor round trip has been reported.

        Args:
            fail: Raise if the texts are not readable, instead of a warning.

        Raises:
            InvalidInput: With `fail`, they are not.
        """
        if fail and not self.readable:
            raise errors.InvalidInput(self.warning)
        if self.warning:
            runtime.warn(self.warning)
        else:
            runtime.announce(f"mixup_hf: {self.summary}")
        return self


def check_readability(
    inverter: Inverter,
    texts: Sequence[str],
    *,
    seed: int = 0,
    sample: int = SAMPLE,
    max_words: int | None = None,
) -> Readability:
    """Decode a sample of texts greedily and compare the sentences with the texts.

    Costs as much as generating `sample` rows.

    Args:
        inverter: Encodes and decodes.
        texts: The training texts (N); pairs count as two texts.
        seed: Seed of the sample.
        sample: How many texts, at most.
        max_words: How many words a generated sentence can have, if known.
    """
    rng = counter_rng(seed, _SAMPLING)
    rows = sorted(rng.permutation(len(texts))[:sample].tolist())
    chosen = [side for row in rows for side in split_sides(texts[row])][:sample]
    embeddings = inverter.encode(chosen)
    decoded = inverter.invert(
        embeddings, seed=seed, temperature=0.0, num_candidates=1, progress=False
    )
    again = inverter.encode(decoded)
    cosines = F.cosine_similarity(again.float(), embeddings.float())
    lengths = torch.tensor([float(len(text.split())) for text in chosen])
    too_long = 0.0 if max_words is None else float((lengths > max_words).float().mean())
    return Readability(
        texts=len(chosen),
        mean=float(cosines.mean()),
        cosines=tuple(cosines.tolist()),
        low_share=float((cosines < LOW).float().mean()),
        non_latin=_non_latin(chosen),
        emoji=sum(map(_has_emoji, chosen)) / len(chosen),
        words=float(lengths.mean()),
        long_share=too_long,
        max_words=max_words,
    )


def _non_latin(texts: Sequence[str]) -> float:
    letters = [sign for text in texts for sign in text if sign.isalpha()]
    names = (unicodedata.name(sign, "") for sign in letters)
    latin = sum(name.startswith("LATIN") for name in names)
    return 1 - latin / len(letters) if letters else 0.0


def _has_emoji(text: str) -> bool:
    """Whether a text contains pictographs, or no letter at all."""
    return not any(map(str.isalpha, text)) or any(0x1F300 <= ord(sign) <= 0x1FAFF for sign in text)
