"""Plugins attached to Trainers on tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from tiny import make_classifier, make_inverter, make_rows, word_tokenizer
from trainer_runs import LABELS, make_arguments, sharpen
from transformers import Trainer

from mixup_hf import InversedMixup, MixupConfig

TOKENIZER = word_tokenizer(classifier=True)
TEXTS, CLASSES = make_rows(12, LABELS)


def tokenized(
    texts: Any = TEXTS, labels: Any = CLASSES, *, prefix: str = "", **settings: Any
) -> Dataset:
    """Texts, labels and tokens, as `dataset.map(tokenize)` makes them."""
    encoded = TOKENIZER([prefix + text for text in texts], truncation=True, **settings)
    return Dataset.from_dict({"text": list(texts), "label": list(labels), **encoded})


def plain_trainer(folder: Path, **settings: Any) -> Trainer:
    """A Trainer as it was before mixup."""
    arguments = settings.pop("arguments", {})
    kind = settings.pop("kind", Trainer)
    model = settings.pop("model", None) or sharpen(make_classifier(LABELS, dropout=0.0))
    defaults = {"train_dataset": tokenized(), "processing_class": TOKENIZER}
    return kind(model=model, args=make_arguments(folder, **arguments), **(defaults | settings))


def make_mixup(*rows: Any, **settings: Any) -> InversedMixup:
    """A plugin whose rows have their parents' labels and are used in the whole run."""
    defaults = {"label_source": "parents", "intrusion": "off", "reuse": False}
    defaults |= {"max_new_tokens": 4, "chunk_size": 4}
    names = {key: settings.pop(key) for key in ("label_names", "num_labels") if key in settings}
    return InversedMixup(
        make_inverter(), *rows, config=MixupConfig(**(defaults | settings)), **names
    )
