"""SetFit (Tunstall et al., arXiv 2209.11055) on the rows of a task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from mixup_hf import errors
from mixup_hf.data.sources import resolve
from mixup_hf.data.targets import label_indices
from mixup_hf.evaluation.experiment.task import Task
from mixup_hf.finetuning.arguments import training_arguments
from mixup_hf.inverter.pretrained import UnreadableModel, check_files


@dataclass(frozen=True)
class SetFitPredicts:
    """Predicts as a SetFit model does.

    Attributes:
        model: The trained `setfit.SetFitModel`.
        num_labels: Number of classes C. A class without training rows is never predicted.
    """

    model: Any
    num_labels: int

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Class probabilities (N, C)."""
        found = np.zeros((len(texts), self.num_labels))
        known = self.model.model_head.classes_
        found[:, known] = np.asarray(self.model.predict_proba(list(texts), as_numpy=True))
        return found


def train(task: Task) -> SetFitPredicts:
    """Tune the sentence encoder on pairs of rows, and fit a logistic regression on it.

    A step is 16 pairs, the library's default; there are `max_steps` of them, or without it as many
    as the library takes. The model must be a sentence encoder.

    Raises:
        MissingPackage: setfit is not installed.
    """
    setfit = errors.optional("setfit", "benchmarks", "The arm 'setfit'")
    arguments = training_arguments(task.run, "single_label_classification")
    source = resolve(task.run.model, revision=task.run.model_revision)
    _refuse_code(source.path)
    device = str(arguments.device)
    with torch.random.fork_rng():
        torch.manual_seed(task.seed)
        model = setfit.SetFitModel.from_pretrained(str(source.path), device=device)
        model.model_body.max_seq_length = task.run.data.max_length
        if task.freeze_embeddings:
            model.model_body[0].auto_model.get_input_embeddings().requires_grad_(False)
        trainer = setfit.Trainer(
            model=model,
            args=setfit.TrainingArguments(
                output_dir=str(task.folder / "setfit"),
                max_steps=arguments.max_steps,
                seed=task.seed,
                report_to="none",
                save_strategy="no",
                show_progress_bar=False,
            ),
            train_dataset=Dataset.from_dict(
                {
                    "text": task.train.texts,
                    "label": label_indices(task.train.labels, task.names),
                }
            ),
        )
        with torch.autocast(arguments.device.type, torch.bfloat16, enabled=bool(arguments.bf16)):
            trainer.train()
    return SetFitPredicts(model, len(task.names))


def _refuse_code(folder: Path) -> None:
    """Raise for what setfit would unpickle, or import by the name that a file gives it."""
    check_files(folder)
    head, modules = folder / "model_head.pkl", folder / "modules.json"
    if head.exists():
        raise UnreadableModel(f"{head} is a pickle, which can run any code. Name a model without.")
    kinds = json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []
    for kind in (str(each["type"]) for each in kinds):
        if not kind.startswith("sentence_transformers."):
            raise UnreadableModel(f"{modules} names code of its own: {kind}. Take another model.")
