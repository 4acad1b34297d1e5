"""A tiny alignment run: random partners, a few sentences, a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny import make_encoder, make_llm, make_rows, word_tokenizer

from mixup_hf.config import AlignConfig, StageConfig

STEPS = 8
LEXICON_STAGE = StageConfig(
    name="0-lexicon",
    train_lexicon=True,
    train_projector=False,
    max_steps=2,
    warmup_steps=0,
    projector_lr=0.01,
)


def save_partners(folder: Path) -> dict[str, str]:
    """Save the partners and the sentences; returns the config keys that name them."""
    encoder, llm = make_encoder(), make_llm()
    encoder.model.save_pretrained(folder / "encoder")
    encoder.tokenizer.save_pretrained(folder / "encoder")
    llm.save_pretrained(folder / "llm")
    word_tokenizer(classifier=False).save_pretrained(folder / "llm")
    sentences = make_rows(52)[0] + make_rows(28)[0]
    data = folder / "sentences.txt"
    data.write_text("\n".join(sentences))
    return {"encoder": str(folder / "encoder"), "llm": str(folder / "llm"), "data": str(data)}


def make_config(partners: dict[str, str], output: Path, **settings: Any) -> AlignConfig:
    defaults: dict[str, Any] = {
        "output_dir": str(output),
        "min_words": 2,
        "max_words": 8,
        "holdout": 8,
        "eval_sentences": 4,
        "eval_steps": 4,
        "save_steps": 3,
        "log_steps": 1,
        "batch_tokens": 128,
        "projector_width": 24,
        "num_soft_tokens": 2,
        "lora_r": 2,
        "num_hints": 3,
        "lexicon_sentences": 40,
        "lexicon_common": 2,
        "lexicon_width": 16,
        "lexicon_rank": 8,
        "ratio_pairs": 0,  # a decoder that has learned next to nothing follows no ratio
        "bf16": False,
        "use_cpu": True,
        "max_sentences": 40,
        "stages": (
            LEXICON_STAGE,
            StageConfig(name="a", max_steps=STEPS, warmup_steps=1, projector_lr=0.01),
            StageConfig(name="b", max_steps=STEPS, warmup_steps=1, train_lora=True, lora_lr=0.01),
        ),
    }
    return AlignConfig(**(partners | defaults | settings))
