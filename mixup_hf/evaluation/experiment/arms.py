"""The arms of an experiment: what is compared with what.

All arms but `none` and `embedding_mixup` make rows once and feed them to training in the same way,
by the same collator, pool and loss: they differ in the rows alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mixup_hf.config import MixupConfig
from mixup_hf.data.rows import mixed_json
from mixup_hf.data.tables import LabelledTexts
from mixup_hf.data.targets import label_indices
from mixup_hf.evaluation.experiment.config import mixup_with
from mixup_hf.evaluation.experiment.embedding_mixup import EmbeddingMixup
from mixup_hf.evaluation.experiment.models import Models
from mixup_hf.evaluation.experiment.rewriting import contextual, eda, paraphrase
from mixup_hf.finetuning.runner import Attaches
from mixup_hf.runtime import counter_rng
from mixup_hf.training.inversed import InversedMixup
from mixup_hf.training.offline import OfflineMixup
from mixup_hf.types import MixedExample

_CHOOSING = 7  # what a stream of random numbers is for; part of its key


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
    """

    train: LabelledTexts
    eval_texts: Sequence[str]
    names: list[str]
    mixup: MixupConfig
    rows: int
    seed: int
    folder: Path
    models: Models


Arm = Callable[[Task], Attaches | None]
Rewrite = Callable[[Sequence[str], Task], list[str]]


def _plain(task: Task) -> None:
    return None


def _embedding_mixup(task: Task) -> Attaches:
    return EmbeddingMixup(task.names, seed=task.seed)


def _mixing(method: str) -> Arm:
    """An arm of `InversedMixup`: a method's own weights, pairing and interpolation, unless set."""
    return lambda task: _mixed(task, mixup_with(task.mixup, {"method": method}))


def _mixed(task: Task, mixup: MixupConfig) -> Attaches:
    config = replace(mixup, seed=task.seed, refill_every=0, rows_per_refill=task.rows)
    return InversedMixup(task.models.inverter, config=config, **_training_set(task))


def _rewriting(rewrite: Rewrite) -> Arm:
    """An arm that makes each row from one training row, and keeps its label."""

    def arm(task: Task) -> Attaches:
        rng = counter_rng(task.seed, _CHOOSING)
        turns = -(-task.rows // len(task.train))
        order = [int(at) for _ in range(turns) for at in rng.permutation(len(task.train))]
        parents = order[: task.rows]
        texts = rewrite([task.train.texts[at] for at in parents], task)
        _write(task, parents, texts)
        config = replace(task.mixup, seed=task.seed, refill_every=0, rows_per_refill=task.rows)
        return OfflineMixup(_rows_file(task), config=config, **_training_set(task))

    return arm


_ARMS: dict[str, Arm] = {
    "none": _plain,
    "oversample": _rewriting(lambda texts, task: list(texts)),
    "eda": _rewriting(lambda texts, task: eda(texts, task.seed)),
    "contextual": _rewriting(lambda texts, task: contextual(texts, task.models, task.seed)),
    "paraphrase": _rewriting(lambda texts, task: paraphrase(texts, task.models, task.seed)),
    "embedding_mixup": _embedding_mixup,
    "smotext": _mixing("smotext"),
    "structure_preserving": _mixing("structure-preserving"),
    "inversed_mixup": _mixing("inversed-mixup"),
}


def prepare(arm: str, task: Task) -> Attaches | None:
    """What the Trainer of an arm is given beside model and data.

    Args:
        arm: One of `config.ARMS`; or another name, for an arm that mixes as `task.mixup` says.
        task: What it works with.
    """
    task.folder.mkdir(parents=True, exist_ok=True)
    return _ARMS[arm](task) if arm in _ARMS else _mixed(task, task.mixup)


def _training_set(task: Task) -> dict[str, Any]:
    """What a plugin is told of the rows."""
    return {
        "texts": task.train.texts,
        "labels": task.train.labels,
        "num_labels": len(task.names),
        "label_names": task.names,
        "eval_texts": task.eval_texts,
    }


def _rows_file(task: Task) -> Path:
    return task.folder / "rows.jsonl"


def _write(task: Task, parents: Sequence[int], texts: Sequence[str]) -> None:
    labels = torch.eye(len(task.names))[label_indices(task.train.labels, task.names)]
    with _rows_file(task).open("w", encoding="utf-8") as stream:
        for index, (parent, text) in enumerate(zip(parents, texts, strict=True)):
            row = MixedExample(
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
            line = mixed_json(row, task.train.texts, task.names)
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
