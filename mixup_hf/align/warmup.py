"""First half of stage 2: fine-tune the encoder on the task, which shifts its embeddings."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from mixup_hf import runtime
from mixup_hf.align.settings import claim, digest
from mixup_hf.config import TaskConfig
from mixup_hf.data.sources import ResolvedSource
from mixup_hf.data.tables import LabelledTexts
from mixup_hf.data.targets import class_indices
from mixup_hf.inverter.checkpoint import fingerprint
from mixup_hf.inverter.pretrained import load_model, load_tokenizer

_MARK = "warmed.json"


def warm_up(
    source: ResolvedSource,
    table: LabelledTexts,
    config: TaskConfig,
    folder: Path,
    *,
    seed: int,
    use_cpu: bool,
) -> Path:
    """Fine-tune an encoder on labeled texts with the classification loss.

    Frozen: nothing; the whole encoder is trained. Loss: cross entropy with a new classification
    head, which is discarded afterward. Data: the labeled texts. A warm-up already finished with the
    same settings is not repeated.

    Args:
        source: The encoder to fine-tune.
        table: Labeled texts.
        config: Number of epochs, learning rate and batch size.
        folder: Where to save the fine-tuned encoder.
        seed: Seed for the head's initialization and the row order.
        use_cpu: Whether to train on the CPU.

    Returns:
        `folder`, which `FrozenEncoder.from_pretrained` can load.
    """
    rows = [f"{text}\t{label}" for text, label in zip(table.texts, table.labels, strict=True)]
    settings = asdict(config) | {"seed": seed, "encoder": fingerprint(source), "rows": digest(rows)}
    claim(folder, settings)
    if (folder / _MARK).is_file():
        return folder
    indices, names = class_indices(table.labels, None, None)
    tokenizer = load_tokenizer(source.path)
    set_seed(seed)
    model = load_model(
        AutoModelForSequenceClassification, source.path, complete=False, num_labels=len(names)
    )
    encoded = tokenizer(table.texts, truncation=True, max_length=config.max_length)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=config.warm_up_epochs,
            learning_rate=config.warm_up_lr,
            per_device_train_batch_size=config.warm_up_batch_size,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=use_cpu,
            seed=seed,
        ),
        train_dataset=Dataset.from_dict({**encoded, "label": indices}),
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    result = trainer.train()
    if runtime.is_main_process():
        warmed = trainer.accelerator.unwrap_model(trainer.model)
        warmed.base_model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / _MARK).write_text(json.dumps({"rows": len(table), "loss": result.training_loss}))
    runtime.wait_for_everyone()
    return folder
