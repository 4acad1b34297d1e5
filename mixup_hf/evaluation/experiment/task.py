"""What an arm is given, what it may return, and the two ways in which arms make rows.

Most arms make rows once and feed them to training in the same way, through the same collator, pool
and loss: they differ in the rows alone. `none` and `embedding_mixup` make none; `committee` and
`setfit` predict the test rows themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mixup_hf import registry
from mixup_hf.config import FinetuneConfig, MixupConfig
from mixup_hf.data.row_files import mixed_json
from mixup_hf.data.row_writer import write_rows
from mixup_hf.data.tables import LabelledTexts
from mixup_hf.data.targets import label_indices
from mixup_hf.data.text_pairs import MARK, split_sides
from mixup_hf.evaluation.experiment.models import Models
from mixup_hf.evaluation.experiment.predicting import Predicts
from mixup_hf.finetuning.runner import Attaches
from mixup_hf.runtime import counter_rng
from mixup_hf.training.inversed import InversedMixup
from mixup_hf.training.offline import OfflineMixup
from mixup_hf.types import MixedExample

_CHOOSING = 7  # what this stream of random numbers is for; part of its key


@dataclass(frozen=True)
class Task:
    """What an arm works with.

    Attributes:
        train: Training rows.
        eval_texts: What the model will be evaluated on.
        names: The classes.
        mixup: How mixing arms mix.
        rows: How many rows to make.
        seed: Of everything drawn.
        folder: Where the rows are written.
        models: The inverter and its LLM, loaded on first use.
        run: The fine-tuning run of all arms: model, training arguments, longest text.
        freeze_embeddings: Whether the model's token embeddings stay as they are.
        unlabeled: Further texts of the task, without labels; empty unless the experiment asks.
    """

    train: LabelledTexts
    eval_texts: Sequence[str]
    names: list[str]
    mixup: MixupConfig
    rows: int
    seed: int
    folder: Path
    models: Models
    run: FinetuneConfig
    freeze_embeddings: bool = False
    unlabeled: Sequence[str] = ()


@dataclass(frozen=True)
class Trained:
    """An arm that also sets training arguments.

    Attributes:
        plugin: What the Trainer is given beside model and data.
        training: Arguments of `TrainingArguments`, over those of the experiment.
    """

    plugin: Attaches | None
    training: dict[str, Any]


def prepare(arm: str, task: Task, *, variant: bool = False) -> Attaches | Trained | Predicts | None:
    """What the Trainer of an arm is given beside model and data, or what predicts in its place.

    Args:
        arm: A registered arm, or the name of a variant.
        task: What it works with.
        variant: Whether it is a variant, which mixes as `task.mixup` says.
    """
    task.folder.mkdir(parents=True, exist_ok=True)
    if variant:
        return mixed(task, task.mixup)
    prepared: Attaches | Trained | Predicts | None = registry.get("arm", arm)(task)
    return prepared


def mixed(task: Task, mixup: MixupConfig) -> Attaches:
    """Rows decoded from mixes of training rows, and the unlabelled texts where `mixup` uses them.

    Args:
        task: What the arm works with.
        mixup: How to mix.
    """
    config = replace(mixup, seed=task.seed, refill_every=0, rows_per_refill=task.rows)
    return InversedMixup(
        task.models.inverter,
        config=config,
        unlabeled_texts=task.unlabeled if mixup.label_source in (None, "committee") else (),
        label_descriptions=task.run.data.label_descriptions,
        **_training_set(task),
    )


def as_published(mixup: MixupConfig) -> MixupConfig:
    """The same, but rows keep their parents' labels and are used throughout, in the plain loss.

    So compared arms, and methods as published, do not gain from what `mixup` adds to them.
    """
    return replace(
        mixup,
        label_source="parents",
        curriculum="constant",
        contrastive_weight=0.0,
        unlabeled_parents=0.0,
        own_texts="off",
    )


def rewritten(
    task: Task,
    rewrite: Callable[[Sequence[str]], list[str]],
    *,
    parents: Sequence[int] | None = None,
    labels: np.ndarray | None = None,
    **settings: Any,
) -> Attaches:
    """Rows made from one training row each, whose label they keep.

    Args:
        task: What the arm works with.
        rewrite: Makes a new text of each text; of pairs, of each side.
        parents: The training row of each new row. Default: `task.rows` of them, drawn so that each
            training row is used equally often.
        labels: Soft labels (N, C) of the training rows, for the new rows. Default: their own.
        **settings: Fields of `MixupConfig` that are set otherwise than in the plain loss.
    """
    if parents is None:
        rng = counter_rng(task.seed, _CHOOSING)
        turns = -(-task.rows // len(task.train))
        order = [int(at) for _ in range(turns) for at in rng.permutation(len(task.train))]
        parents = order[: task.rows]
    if labels is None:
        labels = np.eye(len(task.names))[label_indices(task.train.labels, task.names)]
    file = task.folder / "rows.jsonl"
    _write(
        file, task, parents, _each_side(rewrite, [task.train.texts[at] for at in parents]), labels
    )
    config = replace(
        as_published(task.mixup),
        seed=task.seed,
        refill_every=0,
        rows_per_refill=task.rows,
        **settings,
    )
    return OfflineMixup(file, config=config, **_training_set(task))


def _each_side(rewrite: Callable[[Sequence[str]], list[str]], texts: Sequence[str]) -> list[str]:
    """New texts, those of pairs side by side."""
    sides = [split_sides(text) for text in texts]
    made = iter(rewrite([side for each in sides for side in each]))
    return [MARK.join(islice(made, len(each))) for each in sides]


def _training_set(task: Task) -> dict[str, Any]:
    """What a plugin has to know about the rows."""
    return {
        "texts": task.train.texts,
        "labels": task.train.labels,
        "num_labels": len(task.names),
        "label_names": task.names,
        "eval_texts": task.eval_texts,
    }


def _write(
    file: Path, task: Task, parents: Sequence[int], texts: Sequence[str], labels: np.ndarray
) -> None:
    rows = [
        MixedExample(
            text=text,
            label=tuple(labels[parent].tolist()),
            lam=1.0,
            parents=(parent,),
            shares=(1.0,),
            seed=task.seed,
            epoch=0,
            index=index,
            aligner_fingerprint="",
        )
        for index, (parent, text) in enumerate(zip(parents, texts, strict=True))
    ]
    write_rows(file, [mixed_json(row, task.train.texts, task.names) for row in rows])
