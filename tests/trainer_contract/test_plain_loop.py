"""`mixup.batches` and `mixup.loss`, in loops of plain torch and of accelerate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from attaching import CLASSES, TEXTS, TOKENIZER, make_mixup, tokenized
from tiny import make_classifier, make_rows
from torch.utils.data import DataLoader
from trainer_runs import LABELS, assert_moved, weights
from transformers import DataCollatorWithPadding

from mixup_hf import runtime
from mixup_hf.errors import MixupError
from mixup_hf.generation.replay import RecordedRows
from mixup_hf.training.plain_loop import LoopRows, mixed_batches


def make_loader(data: Any = None, **settings: Any) -> DataLoader[Any]:
    rows: Any = tokenized().remove_columns("text") if data is None else data
    return DataLoader(rows, batch_size=4, collate_fn=DataCollatorWithPadding(TOKENIZER), **settings)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_trains_on_mixed_rows(workers: int, prepared: bool) -> None:
    model = make_classifier(LABELS, dropout=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader: Any = make_loader(num_workers=workers)
    accelerator = Accelerator(cpu=True)
    if prepared:
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    before, mixup = weights(model), make_mixup(TEXTS, CLASSES, pairing="cross_class")
    for epoch in range(2):
        for inputs, targets in mixup.batches(loader, TOKENIZER, epoch=epoch):
            assert not {"labels", "soft_labels", "mixup_rows"} & set(inputs)
            assert targets.values.shape == (8, LABELS)
            assert targets.mixed.tolist() == [False] * 4 + [True] * 4
            outputs = model(**inputs)
            loss = mixup.loss(outputs, targets)
            rows = -(targets.values * outputs.logits.log_softmax(-1)).sum(-1)
            assert loss.item() == pytest.approx(rows.mean().item(), abs=1e-5)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    assert_moved(before, weights(model))
    plain = next(iter(loader))  # the loader is as it was
    assert len(plain["labels"]) == 4


def test_every_generated_row_is_used_once_and_other_epochs_get_others() -> None:
    mixup, loader = make_mixup(TEXTS, CLASSES), make_loader()
    seen = []
    for epoch in range(2):
        made = [row.text for row in mixup.generate(12, epoch=epoch)]
        rows = [
            ids[mask.bool()].tolist()
            for inputs, targets in mixup.batches(loader, TOKENIZER, epoch=epoch)
            for ids, mask in zip(
                inputs["input_ids"][targets.mixed],
                inputs["attention_mask"][targets.mixed],
                strict=True,
            )
        ]
        assert rows == TOKENIZER(made)["input_ids"]
        seen.append(rows)
    assert seen[0] != seen[1]


def test_rows_are_made_as_they_are_drawn() -> None:
    """All rows of an epoch used to be made before its first batch, without a progress bar."""
    texts, labels = make_rows(100)
    mixup = make_mixup(texts, labels, chunk_size=64)
    loader = make_loader(tokenized(texts, labels).remove_columns("text"))
    made = []
    for _ in mixup.batches(loader, TOKENIZER, epoch=0):
        made.append(mixup.producer.decoded)
    assert made[0] == 8
    assert made[-1] == 100


def test_rows_that_serve_all_epochs_are_made_once() -> None:
    mixup, loader = make_mixup(TEXTS, CLASSES, refill_every=0), make_loader()
    for epoch in range(3):
        assert len(list(mixup.batches(loader, TOKENIZER, epoch=epoch))) == 3
    assert mixup.producer.decoded == 12


def test_processes_take_turns_in_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of two processes used to draw the first half of the rows, and neither the second."""
    rows = make_mixup(TEXTS, CLASSES).generate(12)
    texts = [row.text for row in rows]
    collator = make_mixup(TEXTS, CLASSES).trainer_kwargs(TOKENIZER)["data_collator"]
    drawn = []
    monkeypatch.setattr(collator, "preprocess", lambda made: drawn.extend(made) or TOKENIZER(made))
    monkeypatch.setattr(runtime, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(runtime, "rank", lambda rank=rank: rank)
        half = make_loader(tokenized().remove_columns("text").shard(2, rank))
        list(mixed_batches(half, collator, LoopRows(RecordedRows(TEXTS, rows), 0, 12)))
    assert sorted(drawn) == sorted(texts)
    assert drawn == texts[::2] + texts[1::2]


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.75])
def test_the_ratio_holds_on_average(ratio: float) -> None:
    texts, labels = make_rows(48)
    loader = make_loader(tokenized(texts, labels).remove_columns("text"))
    mixup = make_mixup(texts, labels, mix_ratio=ratio)
    flags = [t.mixed for _, t in mixup.batches(loader, TOKENIZER, epoch=0)]
    mixed = sum(int(flag.sum()) for flag in flags)
    assert mixed == int(48 * ratio / (1 - ratio) + 1e-9)


def test_rows_kept_for_several_epochs_are_shared_among_them() -> None:
    mixup, loader = make_mixup(TEXTS, CLASSES, refill_every=2), make_loader()
    epochs = [
        [
            ids.tolist()
            for inputs, targets in mixup.batches(loader, TOKENIZER, epoch=epoch)
            for ids in inputs["input_ids"][targets.mixed]
        ]
        for epoch in range(2)
    ]
    assert epochs[0] != epochs[1]


def test_accumulated_losses_add_up_to_that_of_the_large_batch() -> None:
    model = make_classifier(LABELS, dropout=0.0).eval()
    mixup = make_mixup(TEXTS, CLASSES)
    mixup.class_weights = torch.tensor([1.0, 2.0, 3.0])
    parts = [
        mixup.loss(model(**inputs), targets, num_rows=24)
        for inputs, targets in mixup.batches(make_loader(), TOKENIZER, epoch=0)
    ]
    whole = DataLoader(
        tokenized().remove_columns("text"),
        batch_size=12,
        collate_fn=DataCollatorWithPadding(TOKENIZER),
    )
    ((inputs, targets),) = mixup.batches(whole, TOKENIZER, epoch=0)
    torch.testing.assert_close(sum(parts), mixup.loss(model(**inputs), targets))


def test_rows_of_another_set_are_refused() -> None:
    texts, labels = make_rows(40)
    other = make_loader(tokenized(texts[20:], labels[20:]).remove_columns("text"))
    with pytest.raises(MixupError, match="other rows than those that are mixed"):
        make_mixup(TEXTS, CLASSES).batches(other, TOKENIZER, epoch=0)


def test_one_loader_in_two_loops_is_refused() -> None:
    mixup, loader = make_mixup(TEXTS, CLASSES), make_loader()
    first = mixup.batches(loader, TOKENIZER, epoch=0)
    next(first)
    with pytest.raises(MixupError, match="already in a `mixup.batches` loop"):
        next(mixup.batches(loader, TOKENIZER, epoch=0))
    first.close()
    assert isinstance(loader.collate_fn, DataCollatorWithPadding)


def test_what_a_loop_cannot_have_is_refused() -> None:
    with pytest.raises(MixupError, match="`source` = 'task' follows a model inside a Trainer"):
        make_mixup(TEXTS, CLASSES, source="task").batches(make_loader(), TOKENIZER, epoch=0)
    with pytest.raises(MixupError, match="no training rows yet"):
        make_mixup().batches(make_loader(), TOKENIZER, epoch=0)
