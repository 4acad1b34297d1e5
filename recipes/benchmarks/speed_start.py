"""How long a run waits for its first step, and what judging costs beside decoding."""

from __future__ import annotations

import time
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from speed_setup import bare, headlines
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
    "default, rows found in the store": MixupConfig(),
    "without contrastive start": MixupConfig(reuse=False, contrastive_start=0),
    "parents' labels, no judges": bare(reuse=False, contrastive_start=0),
    "parents' labels, no judges, in the background": bare(
        reuse=False, contrastive_start=0, background=True
    ),
}


def starting(rows: int = 100) -> dict[str, float]:
    """Seconds from `attach` to the end of the first step, models and data in memory."""
    every, names = headlines()
    step = len(every) // rows
    texts, labels = every[::step][:rows], names[::step][:rows]
    found: dict[str, float] = {}
    print("| settings | seconds to the first step |\n|---|---|")
    for name, config in STARTS.items():
        if name == "default, rows found in the store":
            first_step(texts, labels, config)  # leaves them there
        found[name] = first_step(texts, labels, config)
        print(f"| {name} | {found[name]:.1f} |", flush=True)
    return found


def first_step(texts: list[str], labels: list[str], config: MixupConfig) -> float:
    """As in a script of a user's, which ends after its first step."""
    classes = sorted(set(labels))
    base = fetch_embedded("all-minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(classes))
    mixup = InversedMixup.from_pretrained("embedded", config=config)
    rows = {"text": texts, "label": [classes.index(label) for label in labels]}
    data = Dataset.from_dict(rows).map(lambda row: tokenizer(row["text"]))
    clock = FirstStep()
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
        trainer.train()
    return clock.ended - started


class FirstStep(TrainerCallback):
    """Ends a run after its first step."""

    ended = 0.0

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
