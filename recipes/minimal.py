"""A fine-tuning script of a page, and the two lines that mixup adds to it.

python recipes/minimal.py
"""

from __future__ import annotations

import numpy as np
from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

from mixup_hf import InversedMixup, fetch_embedded


def main() -> None:
    """Fine-tune MiniLM on 100 BBC headlines, half of every batch generated."""
    base, data = fetch_embedded("all-minilm-l6-v2"), fetch_embedded("bbc_headlines")
    files = {split: str(data / f"{split}.jsonl") for split in ("train", "test")}
    splits = load_dataset("json", data_files=files).class_encode_column("label")
    train = splits["train"].shuffle(seed=1).select(range(100))
    test = splits["test"]
    num_labels = train.features["label"].num_classes
    tokenizer = AutoTokenizer.from_pretrained(base)
    mixup = InversedMixup.from_pretrained(
        "embedded", list(train["text"]), list(train["label"]), num_labels=num_labels
    )

    def tokenized(split):
        return split.map(lambda rows: tokenizer(rows["text"]), batched=True)

    trainer = Trainer(
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=num_labels),
        TrainingArguments(
            "runs/minimal",
            num_train_epochs=4,
            per_device_train_batch_size=16,
            learning_rate=1e-4,
            eval_strategy="epoch",
            logging_strategy="epoch",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=tokenized(train),
        eval_dataset=tokenized(test),
        processing_class=tokenizer,
        compute_metrics=lambda p: {"accuracy": np.mean(p.predictions.argmax(-1) == p.label_ids)},
        **mixup.trainer_kwargs(tokenizer),
    )
    trainer.train()
    for row in mixup.generate(3):
        first, second = (train["text"][parent] for parent in row.parents)
        print(f"{row.lam:.2f} {first!r} + {second!r} -> {row.text!r}")


if __name__ == "__main__":
    main()
