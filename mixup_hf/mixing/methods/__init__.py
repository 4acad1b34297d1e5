"""Methods by name: what each paper sets together. A method is one file in this folder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """What a published method sets, unless the user does.

    Attributes:
        paper: The source.
        weights: Specification of the distribution of lambda, as `parse_weights` reads it.
        pairing: Which rows are mixed with each other.
        interpolation: How embeddings are interpolated.
        source: Whose embeddings are mixed.
    """

    paper: str
    weights: str
    pairing: str
    interpolation: str = "linear"
    source: str = "frozen"


# An aligner decodes with the prompt it was trained with, so a method cannot set the prompt.
PROMPT = "the aligner's (`prompt_prefix` and `prompt_suffix` when it is trained)"
