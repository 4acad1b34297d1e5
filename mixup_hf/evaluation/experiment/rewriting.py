"""What peers do: a row is made from one training row, and keeps its label.

`eda` is Wei and Zou's (arXiv 1901.11196) without its synonyms, which need a thesaurus to be
downloaded. `contextual` (Kobayashi, arXiv 1805.06201) asks the LLM for another word where a masked
model would be asked, and so sees only what stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixup_hf.evaluation.experiment.models import Models
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.inverter.sampling import decode
from mixup_hf.runtime import counter_rng

_CHANGED = 0.1  # share of words: EDA's alpha
_LOOKED_AT = 32  # words of a text that the LLM is shown
_WRITING = 11  # what a stream of random numbers is for; part of its key
_ASK = "Say the following sentence in other words. Answer with one sentence only.\n\n{}"


def eda(texts: Sequence[str], seed: int) -> list[str]:
    """Swap some words, or leave some out: one of both, drawn for each text."""
    return [_edited(text, counter_rng(seed, row)) for row, text in enumerate(texts)]


def _edited(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    changes = max(1, round(_CHANGED * len(words)))
    if len(words) < 2:
        return text
    if rng.random() < 0.5:
        for _ in range(changes):
            one, two = rng.choice(len(words), size=2, replace=False)
            words[one], words[two] = words[two], words[one]
        return " ".join(words)
    left_out = set(rng.choice(len(words), size=min(changes, len(words) - 1), replace=False))
    return " ".join(word for at, word in enumerate(words) if at not in left_out)


def contextual(texts: Sequence[str], models: Models, seed: int) -> list[str]:
    """Another word, as the LLM would go on, in a tenth of the places, at least one."""
    words = [text.split() for text in texts]
    places = [
        (row, place)
        for row, each in enumerate(words)
        for place in _drawn_places(len(each), counter_rng(seed, row))
    ]
    beginnings = [" ".join(words[row][max(0, place - _LOOKED_AT) : place]) for row, place in places]
    found = _go_on(beginnings, models, seed, tokens=4)
    changed = [list(each) for each in words]
    for (row, place), text in zip(places, found, strict=True):
        if text.split():
            changed[row][place] = text.split()[0]
    return [" ".join(each) for each in changed]


def _drawn_places(length: int, rng: np.random.Generator) -> list[int]:
    free = np.arange(1, length) if length > 1 else np.array([0])  # the first word follows nothing
    count = max(1, round(_CHANGED * length))
    places: list[int] = rng.choice(free, size=min(count, len(free)), replace=False).tolist()
    return places


def paraphrase(texts: Sequence[str], models: Models, seed: int) -> list[str]:
    """The LLM is asked to say each text, or its beginning, in other words."""
    begun = [" ".join(text.split()[:_LOOKED_AT]) for text in texts]
    asked = [_as_question(_ASK.format(text), models) for text in begun]
    answers = _go_on(asked, models, seed, tokens=32)
    lines = [answer.strip().split("\n")[0].strip(" \"'") for answer in answers]
    return [line or text for line, text in zip(lines, texts, strict=True)]


def _as_question(question: str, models: Models) -> str:
    if not models.tokenizer.chat_template:
        return f"{question}\n\n"
    turn = [{"role": "user", "content": question}]
    return str(
        models.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    )


def _go_on(texts: Sequence[str], models: Models, seed: int, *, tokens: int) -> list[str]:
    """How the LLM goes on after each text, sampled; the global generators stay as they are."""
    # A tokenizer gives an empty text no token at all, and a model needs one.
    asked = [models.tokenizer(text or str(models.tokenizer.eos_token)).input_ids for text in texts]
    settings = DecodeSettings(max_new_tokens=tokens, temperature=0.7, top_p=0.95)
    answers = [""] * len(texts)
    for length in sorted(set(map(len, asked))):  # batches of one length need no padding
        rows = [row for row, ids in enumerate(asked) if len(ids) == length]
        drawn = [counter_rng(seed, _WRITING, row).random(tokens) for row in rows]
        found = decode(
            models.engine,
            models.embed([asked[row] for row in rows]),
            end_ids=models.end_ids,
            settings=settings,
            uniforms=np.stack(drawn),
        )
        said = models.tokenizer.batch_decode(found, skip_special_tokens=True)
        for row, text in zip(rows, said, strict=True):
            answers[row] = text
    return answers
