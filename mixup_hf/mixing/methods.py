"""Methods by name: what each of the papers sets, together."""

from __future__ import annotations

from dataclasses import dataclass

from mixup_hf import errors


@dataclass(frozen=True)
class Preset:
    """What a method's name stands for.

    Attributes:
        paper: Where it comes from.
        weights: Distribution of the ratio, as `parse_weights` reads it.
        pairing: Who is mixed.
        interpolation: How embeddings are mixed.
        source: Whose embeddings.
        prompt: What stands around the soft tokens; it belongs to the aligner.
    """

    paper: str
    weights: str
    pairing: str
    interpolation: str
    source: str
    prompt: str


# An aligner reads the prompt it was trained with, so a method cannot bring another one along.
_ALIGNERS = "the aligner's own (`prompt_prefix`, `prompt_suffix` when it is trained)"

METHODS: dict[str, Preset] = {
    "inversed-mixup": Preset(
        "inversedMixup, arXiv 2601.21543; the paper's source is task",
        "beta:0.4",
        "same_class",
        "linear",
        "frozen",
        _ALIGNERS,
    ),
    "smotext": Preset(
        "SMOTExT, arXiv 2505.13434; the paper's prompt asks for a paraphrase",
        "uniform",
        "smote",
        "linear",
        "frozen",
        _ALIGNERS,
    ),
    "structure-preserving": Preset(
        "structure-preserving mixup, arXiv 2503.02645",
        "epbeta:eps=0.3",
        "same_class",
        "linear",
        "frozen",
        _ALIGNERS,
    ),
}
# What is taken where nothing is said: recipes/benchmarks/RESULTS.md compares the three.
DEFAULT_METHOD = "smotext"


def preset(method: str) -> Preset:
    """The preset of a method.

    Raises:
        ValueError: An unknown name.
    """
    errors.one_of("method", method, tuple(METHODS))
    return METHODS[method]
