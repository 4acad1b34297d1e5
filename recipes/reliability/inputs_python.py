"""Nasty arguments in Python: lists, DataFrames and data sets, arrays, the rows of a Trainer."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import nasty
from tiny_inverter import FAST, check_rows, inverter
from trials import Fault, Trial, outcome

from mixup_hf import InversedMixup, MixupConfig, augment_dataset


def lists(rng: random.Random, folder: Path) -> str:
    """Lists of anything as texts and labels."""
    texts, labels = nasty.rows(rng, rng.choice([0.0, 0.2, 0.7]))
    given: Any = list(texts)
    targets: Any = list(labels)
    if rng.random() < 0.3:
        given[rng.randrange(len(given))] = nasty.value(rng)
    if rng.random() < 0.3:
        targets[rng.randrange(len(targets))] = nasty.value(rng)
    if rng.random() < 0.1:
        given, targets = nasty.value(rng), nasty.value(rng)
    extra: dict[str, Any] = {}
    if rng.random() < 0.2:
        extra["eval_texts"] = [nasty.text(rng, 0.8), nasty.value(rng)][: rng.randint(1, 2)]
    config = MixupConfig(**FAST, pairing=rng.choice(["random", "smote", "local", "cross_class"]))

    def make() -> list[Any]:
        return InversedMixup(inverter(), given, targets, config=config, **extra).generate(4)

    end, found = outcome(make)
    if end == "accepted":
        # One value per row is regression, whose targets are no distribution.
        check_rows(found, given, 4, None if len(found[0].label) == 1 else len(found[0].label))
    return end


def frames(rng: random.Random, folder: Path) -> str:
    """Tables of pandas and `datasets`, with columns of anything through `augment_dataset`."""
    import pandas as pd
    from datasets import Dataset

    texts, labels = nasty.rows(rng, rng.choice([0.0, 0.3]))
    columns: dict[str, Any] = {"text": texts, "label": labels}
    if rng.random() < 0.4:
        name = rng.choice(["text", "label"])
        columns[name] = [*columns[name]]
        columns[name][rng.randrange(len(texts))] = nasty.value(rng)
    if rng.random() < 0.3:
        columns["other"] = [nasty.value(rng) for _ in texts]
    try:
        source: Any = pd.DataFrame(columns)
        if rng.random() < 0.2:
            source.columns = ["text" for _ in source.columns]
        elif rng.random() < 0.2:
            source["label"] = source["label"].astype("category")
        elif rng.random() < 0.2:
            source.index = [7] * len(source)
        if rng.random() < 0.4:
            source = Dataset.from_dict(columns)
    except Exception:  # pandas and pyarrow refuse it themselves
        return "not made"
    end, found = outcome(
        lambda: augment_dataset(source, num_samples=3, inverter=inverter(), **FAST)
    )
    if end == "accepted" and len(found) != 3:
        raise Fault(f"{len(found)} rows instead of 3")
    return end


def smote(rng: random.Random, folder: Path) -> str:
    """Arrays, Series and tables through the sampler of imbalanced-learn."""
    import numpy as np
    import pandas as pd

    from mixup_hf.imblearn import TextSMOTE

    texts, labels = nasty.rows(rng, rng.choice([0.0, 0.3]))
    if rng.random() < 0.3:
        labels[rng.randrange(len(labels))] = nasty.value(rng)
    shape = rng.choice(
        [list, lambda x: np.array(x, dtype=object), pd.Series, lambda x: pd.DataFrame({"t": x})]
    )
    settings = {key: value for key, value in FAST.items() if key != "label_source"}
    sampler = TextSMOTE(aligner=inverter(), random_state=0, settings=settings)
    try:
        given = shape(texts)
    except Exception:  # pandas refuses it itself
        return "not made"
    try:
        end, found = outcome(lambda: sampler.fit_resample(given, labels))
    except (ValueError, TypeError) as error:
        # imbalanced-learn's own checks of labels speak first.
        if "imblearn" in _origin(error) or "sklearn" in _origin(error) or "numpy" in _origin(error):
            return "refused by imbalanced-learn"
        raise
    if end == "accepted" and len(found[0]) != len(found[1]):
        raise Fault("texts and labels of different length")
    return end


def _origin(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else trace.tb_frame.f_code.co_filename


def trainers(rng: random.Random, folder: Path) -> str:
    """Attached to a Trainer with odd rows, then trained for a step."""
    from attaching import make_mixup, plain_trainer, tokenized

    texts, labels = nasty.rows(rng, rng.choice([0.0, 0.3]))
    labels = [row % 3 for row in range(len(texts))]
    try:
        rows = tokenized(texts, labels, max_length=32)
    except Exception:
        return "not made"
    trainer = plain_trainer(folder, train_dataset=rows, arguments={"max_steps": 2})
    mixup = make_mixup(num_labels=3, on_unreadable="off")

    def train() -> Any:
        mixup.attach(trainer, text_column="text")
        return trainer.train()

    end, found = outcome(train)
    if end == "accepted" and not math.isfinite(found.training_loss):
        raise Fault(f"a loss of {found.training_loss}")
    return end


TRIALS: tuple[Trial, ...] = (lists, frames, smote, trainers)
