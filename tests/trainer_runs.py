"""Trainings on tiny models, and what they are compared with: losses and steps computed by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny import make_classifier, make_dataset, make_producer, make_rows, word_tokenizer
from torch import Tensor
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from mixup_hf import MixupCallback, MixupCollator
from mixup_hf.generation.generator import Producer
from mixup_hf.training.attaching import use_soft_smoother
from mixup_hf.training.plain_loop import mixed_rows
from mixup_hf.types import MixedExample

LABELS = 3
RATE = 0.5


def make_arguments(folder: Path, **settings: Any) -> TrainingArguments:
    """Rows in order, batches of 4, one epoch of plain SGD, a log line per step."""
    defaults = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 1,
    }
    return TrainingArguments(output_dir=str(folder), **(defaults | settings))


@dataclass
class Recorder:
    """Keeps every batch the Trainer hands to the model, before any other hook sees it."""

    training: list[dict[str, Tensor]]
    evaluation: list[dict[str, Tensor]]

    def mixed_texts(self) -> list[tuple[int, ...]]:
        """Tokens of the mixed rows of all training batches, without padding."""
        found = []
        for batch in self.training:
            if "mixup_rows" not in batch:
                continue  # the body was tuned on it before the run
            for row in (batch["mixup_rows"] >= 0).nonzero().flatten().tolist():
                kept = batch["attention_mask"][row].bool()
                found.append(tuple(batch["input_ids"][row][kept].tolist()))
        return found


def rows_per_epoch(run: Run) -> int:
    """Generated rows that an epoch over all training rows takes, rounded down."""
    return mixed_rows(len(run.producer.texts), run.collator.mix_ratio)


def record(model: torch.nn.Module) -> Recorder:
    recorder = Recorder([], [])

    def keep(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        batch = {key: kwargs[key].clone() for key in kwargs if key != "num_items_in_batch"}
        (recorder.training if module.training else recorder.evaluation).append(batch)

    model.register_forward_pre_hook(keep, with_kwargs=True)
    return recorder


@dataclass
class Run:
    """A Trainer with the plugin, and all that a test looks at."""

    trainer: Trainer
    collator: MixupCollator
    callback: MixupCallback
    producer: Producer
    batches: Recorder
    initial: Any

    @property
    def model(self) -> Any:
        return self.trainer.model

    def train(self, **kwargs: Any) -> Run:
        self.trainer.train(**kwargs)
        return self

    def logged(self, key: str) -> list[float]:
        return [line[key] for line in self.trainer.state.log_history if key in line]

    def used(self) -> list[tuple[str, int]]:
        return [(row.text, count) for row, count in self.callback.used_rows()]


def make_run(
    folder: Path,
    *,
    model: Any = None,
    rows: int = 8,
    dataset: Any = None,
    producer: Producer | None = None,
    collator: dict[str, Any] | None = None,
    callback: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
    **arguments: Any,
) -> Run:
    """A Trainer with the plugin over the first `rows` rows, without dropout unless `model` has."""
    model = model or sharp_classifier()
    texts, labels = make_rows(rows, LABELS)
    producer = producer or make_producer(rows, LABELS)
    settings = {"num_labels": LABELS} | (collator or {})
    mixing = MixupCollator(word_tokenizer(classifier=True), **settings)
    plugin = MixupCallback(mixing, producer, **(callback or {}))
    given = {"data_collator": mixing, "callbacks": [plugin]} | (trainer or {})
    built = Trainer(
        model=model,
        args=make_arguments(folder, **arguments),
        train_dataset=make_dataset(texts, labels) if dataset is None else dataset,
        processing_class=word_tokenizer(classifier=True),
        **given,
    )
    if built.label_smoother is not None:
        use_soft_smoother(built)
    return Run(built, mixing, plugin, producer, record(model), copy.deepcopy(model))


class CountingProducer(Producer):
    """Notes which refills it decodes rows of."""

    def __init__(self, producer: Producer) -> None:
        self.__dict__.update(producer.__dict__)
        self.asked: list[int] = []

    def chunk(self, epoch: int, chunk: int, num_rows: int) -> list[MixedExample]:
        if epoch not in self.asked:
            self.asked.append(epoch)
        return super().chunk(epoch, chunk, num_rows)


# By hand: what a step should have been, from the sentences and ratios alone.


@dataclass
class Row:
    """One row of a step: its text, its soft label (C,) and its weight in the loss."""

    text: str
    target: Tensor
    weight: float = 1.0


def expected_rows(run: Run, batch: dict[str, Tensor], refill: int = 0) -> list[Row]:
    """The rows behind a recorded batch, from the training texts and the parents of mixed rows."""
    made = run.producer.produce(refill, rows_per_epoch(run))
    labels = run.producer.targets
    texts = {tuple(tokens(text)): at for at, text in enumerate(run.producer.texts)}
    rows = []
    for ids, mask, position in zip(
        batch["input_ids"], batch["attention_mask"], batch["mixup_rows"].tolist(), strict=True
    ):
        if position < 0:
            at = texts[tuple(ids[mask.bool()].tolist())]
            rows.append(Row(run.producer.texts[at], labels[at]))
            continue
        example = made[position]
        first, second = example.parents
        mix = example.lam * labels[first] + (1 - example.lam) * labels[second]
        rows.append(Row(example.text, mix))
    return rows


def tokens(text: str) -> list[int]:
    return word_tokenizer(classifier=True)(text)["input_ids"]


def smoothed(rows: Sequence[Row], factor: float) -> list[Row]:
    return [Row(row.text, (1 - factor) * row.target + factor / LABELS, row.weight) for row in rows]


def weighed(rows: Sequence[Row], batch: dict[str, Tensor], weight: float) -> list[Row]:
    """The rows with `weight` on the mixed ones."""
    mixed = (batch["mixup_rows"] >= 0).tolist()
    pairs = zip(rows, mixed, strict=True)
    return [Row(row.text, row.target, weight if flag else 1.0) for row, flag in pairs]


def loss_by_hand(model: Any, rows: Sequence[Row]) -> Tensor:
    """`sum_r w_r (-sum_c y_rc log p_rc) / R`, one row at a time: no padding, no batches."""
    total = torch.zeros(())
    for row in rows:
        logits = model(input_ids=torch.tensor([tokens(row.text)])).logits[0]
        total = total - row.weight * (row.target * logits.log_softmax(-1)).sum()
    return total / len(rows)


def step_by_hand(model: Any, rows: Sequence[Row]) -> tuple[float, float, dict[str, Tensor]]:
    """Loss, gradient norm and weights of one step of SGD on a copy of the model."""
    model = copy.deepcopy(model).eval()
    loss = loss_by_hand(model, rows)
    loss.backward()
    parameters = [each for each in model.parameters() if each.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([each.grad.norm() for each in parameters]))
    with torch.no_grad():
        for each in parameters:
            each -= RATE * each.grad
    return loss.item(), norm.item(), weights(model)


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=tolerance, msg=name)


def assert_moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    """The guard of every comparison: training changed something."""
    assert any(not torch.equal(before[name], after[name]) for name in before)


# Families of models, without dropout.

_VOCABULARY = make_classifier().config.vocab_size
FAMILIES: dict[str, Callable[[], Any]] = {
    "bert": lambda: make_classifier(LABELS, dropout=0.0),
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=_VOCABULARY,
            dim=16,
            hidden_dim=32,
            n_layers=1,
            n_heads=2,
            max_position_embeddings=64,
            dropout=0.0,
            attention_dropout=0.0,
            seq_classif_dropout=0.0,
            num_labels=LABELS,
        )
    ),
    "roberta": lambda: RobertaForSequenceClassification(
        RobertaConfig(**_encoder(), pad_token_id=0)
    ),
    "deberta": lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**_encoder())),
    "llama": lambda: LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
            num_labels=LABELS,
        )
    ),
}


def make_family(name: str) -> Any:
    torch.manual_seed(0)
    return sharpen(FAMILIES[name]())


def sharp_classifier(dropout: float = 0.0, seed: int = 0) -> Any:
    return sharpen(make_classifier(LABELS, dropout=dropout, seed=seed))


def sharpen(model: Any) -> Any:
    """Make a fresh model sure of itself: near-uniform logits would hide wrong labels."""
    with torch.no_grad():
        for each in model.parameters():
            if each.ndim == 2:
                each *= 10
    return model


def _encoder() -> dict[str, Any]:
    return {
        "vocab_size": _VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 66,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "num_labels": LABELS,
    }
