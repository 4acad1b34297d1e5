"""What the parents' own words as hints change: how many of them come across, and at what price.

    python recipes/benchmarks/hints.py bbc.jsonl trec.jsonl sst2.jsonl --pairs 30

Pairs of rows with different labels are mixed at 1/4, 1/2 and 3/4 and decoded greedily, once with
each setting of `hints`. Prints, for each file and setting: the share of the parents' content words
(words that are not on scikit-learn's list of stop words, question words apart) that are in the mix
at 1/2; how often both parents have one there; recovered lambda; the cosine of the decoded sentence
to the mix; the longest run of words copied from a parent, as a share; words per sentence, and of
the real rows. With --guidance, the aligner's own strength is replaced.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch.nn.functional import cosine_similarity

from mixup_hf import Inverter
from mixup_hf.evaluation.ratio_recovery import lam_recovery, recovered_lam
from mixup_hf.evaluation.text_scores import copied_share

LAMS = (0.25, 0.5, 0.75)
QUESTION_WORDS = {"how", "what", "when", "where", "which", "who", "whom", "whose", "why"}
COLUMNS = ("share", "both", "spearman", "slope", "recovered", "cosine", "copied", "words", "real")


def main() -> None:
    """Measure every file with every setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--hints", nargs="*", default=["embedding", "parents"])
    parser.add_argument("--guidance", type=float, nargs="*")
    parser.add_argument("--aligner", default="embedded")
    parser.add_argument("--show", type=int, default=0, help="mixes at 1/2 to print")
    options = parser.parse_args()
    inverter = Inverter.from_pretrained(options.aligner)
    print("| file | hints | guidance | " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * (3 + len(COLUMNS)))
    for file in options.files:
        pairs = draw(file, options.pairs)
        for strength in options.guidance or [inverter.aligner.config.guidance]:
            inverter.aligner.config.guidance = strength
            for hints in options.hints:
                found, lines = measure(inverter, pairs, hints)
                values = " | ".join(found[name] for name in COLUMNS)
                print(f"| {file.parent.name} | {hints} | {strength} | {values} |", flush=True)
                print("\n".join(lines[: options.show]))


def draw(file: Path, count: int) -> list[tuple[str, str]]:
    """Pairs of texts with different labels."""
    with file.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    rng = random.Random(0)
    pairs = []
    while len(pairs) < count:
        first, second = rng.sample(rows, 2)
        if first["label"] != second["label"]:
            pairs.append((first["text"], second["text"]))
    return pairs


def measure(
    inverter: Inverter, pairs: list[tuple[str, str]], hints: str
) -> tuple[dict[str, str], list[str]]:
    """The figures of one setting, and the mixes at 1/2 with their parents."""
    asked = torch.tensor(LAMS).repeat(len(pairs))
    first, second = (
        inverter.encode([pair[side] for pair in pairs]).repeat_interleave(len(LAMS), 0)
        for side in (0, 1)
    )
    weights = inverter.mix_weights(asked)[:, None]
    mixes = weights * first + (1 - weights) * second
    near = [((one, lam), (other, 1 - lam)) for one, other in pairs for lam in LAMS]
    texts = inverter.invert(mixes, temperature=0.0, parents=near if hints == "parents" else None)
    landed = inverter.encode(texts)
    found = recovered_lam(landed, first, second).numpy()
    recovery = lam_recovery(asked.numpy(), found)
    middle = texts[1 :: len(LAMS)]
    shares, both = zip(*map(shared, middle, pairs), strict=True)
    copied = [copied_share(text, dict(each)) for text, each in zip(texts, near, strict=True)]
    real = [len(text.split()) for pair in pairs for text in pair]
    figures = {
        "share": f"{np.mean(shares):.3f}",
        "both": f"{np.mean(both):.2f}",
        "spearman": f"{recovery['spearman']:.3f}",
        "slope": f"{recovery['slope']:.2f}",
        "recovered": ", ".join(f"{value:.2f}" for value in found.reshape(-1, len(LAMS)).mean(0)),
        "cosine": f"{cosine_similarity(landed, mixes).mean():.3f}",
        "copied": f"{np.mean(copied):.2f}",
        "words": f"{np.mean([len(text.split()) for text in texts]):.1f}",
        "real": f"{np.mean(real):.1f}",
    }
    lines = [f"    {a} | {b} => {text}" for (a, b), text in zip(pairs, middle, strict=True)]
    return figures, lines


def shared(text: str, pair: tuple[str, str]) -> tuple[float, bool]:
    """Share of the parents' content words that are in `text`, and whether both have one there."""
    words, one, other = map(content, (text, *pair))
    return len(words & (one | other)) / max(1, len(one | other)), bool(
        words & one and words & other
    )


def content(text: str) -> set[str]:
    """The words of a text that are no stop words."""
    return {
        word
        for word in re.findall(r"\w+", text.lower())
        if word in QUESTION_WORDS or word not in ENGLISH_STOP_WORDS
    }


if __name__ == "__main__":
    main()
