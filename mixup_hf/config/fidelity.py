"""What can be set when an aligner is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mixup_hf import errors
from mixup_hf.config import _decoding
from mixup_hf.config._base import Number, Whole, settings
from mixup_hf.config._mixing_rules import Quantization


@settings
class FidelityConfig:
    """Measuring an aligner: on which sentences, how."""

    data: str = Field(description="Text file (.gz works), table, folder, or Hub id.")
    origins: str | None = Field(
        default=None,
        description="File with the origin of each line of data; results are given by origin.",
    )
    text_column: str = Field(default="text", description="Text column of a table or Hub data set.")
    max_sentences: Whole = Field(default=300, ge=2, description="How many sentences to read.")
    min_words: Whole = Field(default=4, ge=1, description="Shortest sentence, in words.")
    max_words: Whole = Field(default=20, description="Longest sentence, in words.")
    num_pairs: Whole = Field(default=60, ge=2, description="Pairs to measure lambda recovery on.")
    num_mixes: Whole = Field(
        default=200, ge=1, description="Sampled mixes whose share of distinct sentences is shown."
    )
    best_of: Whole = Field(
        default=1,
        ge=1,
        description="1 decodes greedily; n samples n sentences and keeps the closest.",
    )
    corrections: Whole = _decoding.CORRECTIONS
    close_enough: Number | None = _decoding.CLOSE_ENOUGH
    quantization: Quantization | None = Field(
        default=None, description="Weights of the LLM. By default 4bit on CUDA, none elsewhere."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Compute type; float32 gives the same figures on every CPU."
    )
    output_dir: str | None = Field(
        default=None,
        description="Folder for fidelity.json and fidelity.png. By default printed.",
    )
    seed: Whole = Field(default=0, ge=0, description="Seed of pairs and sampling.")

    def __post_init__(self) -> None:
        errors.at_least("max_words", self.max_words, self.min_words)
