"""What every process of a distributed run does; the tests compare what it wrote.

Run by a launcher as `train_script.py OUTPUT`, and imported for the same cases in one process.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny import make_producer
from trainer_runs import LABELS, CountingProducer, Run, make_run, sharp_classifier, weights

from mixup_hf import InversedMixup, MixupConfig, augment_dataset, runtime, soft_cross_entropy
from mixup_hf.data.tables import read_table
from mixup_hf.training.augmentation import augment_file
from mixup_hf.training.contrastive import Contrast
from mixup_hf.training.curriculum import RealRows

# Micro-batches of 4 rows; an optimiser step takes as many of them as `total` says, whoever does it.
# With `even_batches` off the last one stays short, so that processes hold unequal numbers of rows.
UNEVEN: dict[str, Any] = {"accelerator_config": {"even_batches": False}}
STEPS: dict[str, dict[str, Any]] = {
    "uneven": {"rows": 6, "total": 2},
    "accumulated": {"rows": 14, "total": 4},
    "smoothed": {"rows": 6, "total": 2, "label_smoothing_factor": 0.2},
    "weighed": {"rows": 6, "total": 2, "collator": {"mixed_weight": 0.25}},
    "explicit": {
        "rows": 6,
        "total": 2,
        "collator": {"label_format": "labels"},
        "trainer": {"compute_loss_func": soft_cross_entropy},
    },
}
CONTRASTIVE: dict[str, Any] = {
    "rows": 14,
    "total": 4,
    "callback": {"contrast": Contrast(2.0, rows="all")},
}
EPOCHS: dict[str, Any] = {
    "rows": 24,
    "total": 2,
    "num_train_epochs": 2,
    "train_sampling_strategy": "random",
    "save_strategy": "steps",
    "save_steps": 2,
    "learning_rate": 0.1,
}


def prepare(folder: Path, case: dict[str, Any], **settings: Any) -> Run:
    """A run whose optimiser steps take the same rows for every number of processes."""
    settings = {**case, **settings}
    settings["gradient_accumulation_steps"] = settings.pop("total") // runtime.world_size()
    producer = CountingProducer(make_producer(settings["rows"], LABELS))
    return make_run(folder, producer=producer, **settings)


def step(folder: Path, name: str) -> Run:
    """One optimiser step."""
    return prepare(folder / name, STEPS[name], **UNEVEN).train()


def epochs(folder: Path) -> Run:
    """Two epochs of three steps, with checkpoints after every second."""
    return prepare(folder / "epochs", EPOCHS).train()


def resumed(folder: Path) -> Run:
    """The second epoch again, from within the first: run after `epochs`, in its folder."""
    run = prepare(folder / "epochs", EPOCHS, model=sharp_classifier(seed=9))
    return run.train(resume_from_checkpoint=str(folder / "epochs" / "checkpoint-2"))


def tail(folder: Path) -> Run:
    """22 rows with `even_batches`, as by default: accelerate fills the last batch up."""
    return prepare(folder / "tail", EPOCHS, rows=22).train()


def contrastive(folder: Path) -> Run:
    """One optimiser step with a contrastive term."""
    return prepare(folder / "contrastive", CONTRASTIVE, **UNEVEN).train()


def curriculum(folder: Path) -> Run:
    """Two epochs with ever more generated rows, and training rows in the place of the others."""
    given = make_producer(EPOCHS["rows"], LABELS)
    fill = RealRows(given.texts, given.targets, seed=3)
    callback = {"curriculum": "ramp", "fill": fill}
    return prepare(folder / "curriculum", EPOCHS, callback=callback).train()


CASES: dict[str, Callable[[Path], Run]] = {
    **{name: (lambda folder, name=name: step(folder, name)) for name in STEPS},
    "epochs": epochs,
    "resumed": resumed,
    "tail": tail,
    "contrastive": contrastive,
    "curriculum": curriculum,
}


def summary(run: Run) -> dict[str, Any]:
    assert isinstance(run.producer, CountingProducer)
    return {
        "rows": [len(batch["input_ids"]) for batch in run.batches.training],
        "loss": run.logged("loss"),
        "grad_norm": run.logged("grad_norm"),
        "used": run.used(),
        "asked": run.producer.asked,
    }


def produced() -> dict[str, Any]:
    """Rows made by all processes together, and how many of them were made here."""
    chunks: list[int] = []
    rows = make_producer(24, LABELS).produce(0, 22, on_chunk=chunks.append)
    return {"rows": [row.to_json() for row in rows], "here": sum(chunks)}


def augmented(folder: Path) -> dict[str, Any]:
    """A file of rows by all processes together, and what `augment_dataset` returned here."""
    from datasets import Dataset
    from tiny import make_inverter, make_rows

    texts, labels = make_rows(12, LABELS)
    data = Dataset.from_dict({"text": texts, "label": labels})
    settings = {"max_new_tokens": 4, "chunk_size": 4, "label_source": "parents", "reuse": False}
    made = augment_dataset(data, num_samples=14, inverter=make_inverter(), **settings)
    table = read_table(data, "text", "label")
    mixup = InversedMixup(make_inverter(), texts, labels, config=MixupConfig(**settings))
    done = augment_file(folder / "rows.jsonl", mixup, table, 14, data={})
    runtime.wait_for_everyone()
    written = [json.loads(line)["text"] for line in (folder / "rows.jsonl").open()]
    return {
        "data_set": list(made["text"]),
        "file": written,
        "decoded": mixup.producer.decoded,
        "counted": done.summary.rows,
    }


def logged() -> list[str]:
    """What this process says when every process is asked to speak."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("mixup_hf")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    runtime.log("an information")
    runtime.warn("a warning")
    logger.removeHandler(handler)
    return stream.getvalue().splitlines()


def agreed() -> float:
    return runtime.agree(float(runtime.rank() + 1))


def write(output: Path) -> None:
    """Run all cases; write one file per process, and weights per case."""
    content: dict[str, Any] = {}
    for name, case in CASES.items():
        run = case(output / "runs")
        content[name] = summary(run)
        save_file(weights(run.model), output / f"{name}-{runtime.rank()}.safetensors")
    content |= {
        "world": runtime.world_size(),
        "torch_world": torch.distributed.get_world_size(),
        "produced": produced(),
        "augmented": augmented(output),
        "logged": logged(),
        "agreed": agreed(),
        "pool": sorted(
            path.name for path in (output / "runs" / "epochs" / "_mixup_hf").rglob("refill-*")
        ),
    }
    (output / f"rank-{runtime.rank()}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
