"""What the plugin adds to training: to a step, and to wait for sentences."""

from __future__ import annotations

import statistics
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

from mixup_hf import InversedMixup, fetch_embedded


def training(rounds: int, rows: int = 256) -> dict[str, float]:
    """An epoch on a filled pool, against the plain Trainer on as many rows."""
    texts, labels = (column[:rows] for column in headlines())
    names = sorted(set(labels))
    indices = [names.index(label) for label in labels]
    base = fetch_embedded("all-minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(base)
    mixup = InversedMixup.from_pretrained(
        texts=texts, labels=indices, num_labels=len(names), config=bare(refill_every=0)
    )
    mixed = [row.text for row in mixup.generate(rows)]  # decoded once, then found in the store
    ratios: list[float] = []
    for _ in range(rounds):
        took = []
        for plugin in (False, True):
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(names))
            kwargs: dict[str, Any] = {"data_collator": DataCollatorWithPadding(tokenizer)}
            shown, wanted = (texts + mixed, indices * 2) if not plugin else (texts, indices)
            if plugin:
                kwargs = mixup.trainer_kwargs(tokenizer)
            with TemporaryDirectory() as folder:
                trainer = Trainer(
                    model,
                    TrainingArguments(
                        folder,
                        num_train_epochs=2,
                        per_device_train_batch_size=16 if plugin else 32,
                        save_strategy="no",
                        report_to=[],
                        disable_tqdm=True,
                    ),
                    train_dataset=Dataset.from_dict({**tokenizer(shown), "label": wanted}),
                    processing_class=tokenizer,
                    **kwargs,
                )
                clock = StepClock()
                trainer.add_callback(clock)
                trainer.train()
                took.append(clock.seconds)
        ratios.append(took[1] / took[0])
    ratio = statistics.median(ratios)
    print(f"A training step with a filled pool takes {ratio:.3f} times a plain one.\n")
    return {"step_ratio": ratio}


def background(rows: int = 128, epochs: int = 3) -> dict[str, float]:
    """Share of a training in which it waits for sentences, made in line and in the background."""
    texts, labels = (column[:rows] for column in headlines())
    base = fetch_embedded("all-minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(base)
    found: dict[str, float] = {}
    for name, ahead in (("inline", False), ("background", True)):
        mixup = InversedMixup.from_pretrained(
            texts=texts, labels=labels, config=bare(reuse=False, background=ahead)
        )
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=5)
        names = mixup.label_names
        train = {**tokenizer(texts), "label": [names.index(label) for label in labels]}
        clock = StepClock()
        with TemporaryDirectory() as folder:
            trainer = Trainer(
                model,
                TrainingArguments(
                    folder,
                    num_train_epochs=epochs,
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                ),
                train_dataset=Dataset.from_dict(train),
                processing_class=tokenizer,
                **mixup.trainer_kwargs(tokenizer),
            )
            trainer.add_callback(clock)
            started = time.perf_counter()
            trainer.train()
            found[name] = time.perf_counter() - started
            found[f"{name}_idle_share"] = clock.waited / found[name]
    print(
        f"Training waits for sentences {found['inline_idle_share']:.0%} of its time in line, "
        f"{found['background_idle_share']:.0%} in the background; it takes "
        f"{found['inline']:.0f} s and {found['background']:.0f} s.\n"
    )
    return found


class StepClock(TrainerCallback):
    """Seconds of all steps but the first of each epoch, which waits for workers or a refill."""

    def __init__(self) -> None:
        self.seconds = self.waited = 0.0
        self._last: float | None = None
        self._epoch_ended: float | None = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """The first refill begins."""
        self._epoch_ended = time.perf_counter()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """The next refill begins."""
        self._epoch_ended = time.perf_counter()

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """Forget what was before; this callback is the last, so a refill is over."""
        self._last = None
        if self._epoch_ended is not None:
            self.waited += time.perf_counter() - self._epoch_ended

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Count from the end of the step before."""
        now = time.perf_counter()
        if self._last is not None:
            self.seconds += now - self._last
        self._last = now
