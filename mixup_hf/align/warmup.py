"""Stage 2's first half: the encoder learns the task, so its embedding space moves."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
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
    """Fine-tune an encoder on labelled texts with the classification loss.

    Frozen: nothing of the encoder. Loss: cross entropy of a fresh head, which is thrown away.
    Data: the labelled texts. A warm-up that is finished, with the same settings, is not
    repeated.

    Args:
        source: The encoder.
        table: Labelled texts.
        config: How long and how fast.
        folder: Where the warmed encoder goes.
        seed: Of the head and the order of the rows.
        use_cpu: Stay on the CPU.

    Returns:
        `folder`, a model that `FrozenEncoder.from_pretrained` reads.
    """
    rows = [f"{text}\t{label}" for text, label in zip(table.texts, table.labels, strict=True)]
    settings = asdict(config) | {"seed": seed, "encoder": fingerprint(source), "rows": digest(rows)}
    claim(folder, settings)
    if (folder / _MARK).is_file():
        return folder
    indices, names = class_indices(table.labels, None, None)
    tokenizer = AutoTokenizer.from_pretrained(source.path)
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        source.path, num_labels=len(names), use_safetensors=True
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
