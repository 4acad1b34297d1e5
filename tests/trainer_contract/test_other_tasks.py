"""Several labels a row, and numbers: the Trainer's step is the one done by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import FakeEncoder, fake_invert, make_classifier, make_dataset, make_rows
from torch.nn import functional as F
from trainer_runs import (
    Run,
    assert_close,
    assert_moved,
    make_run,
    rows_per_epoch,
    sharpen,
    tokens,
    weights,
)
from transformers import BertForTokenClassification

from mixup_hf.generation.generator import Producer
from mixup_hf.mixing.pairing import PairPlan
from mixup_hf.mixing.weights.beta import Beta
from mixup_hf.training.contrastive import Contrast, contrastive_loss
from mixup_hf.training.curriculum import RealRows
from mixup_hf.training.loss import row_losses

ROWS = 8
LABELS: dict[str, Any] = {
    "multi_label_classification": [
        [float(row % 2), 1.0, float(row % 3 == 0)] for row in range(ROWS)
    ],
    "regression": [0.25 * row for row in range(ROWS)],
}


def build(problem: str, folder: Path, **settings: Any) -> Run:
    labels = LABELS[problem]
    targets = torch.tensor(labels).reshape(ROWS, -1)
    texts, _ = make_rows(ROWS)
    plan = PairPlan(np.arange(ROWS), pairing="random", weights=Beta(1.0), seed=0, chunk_size=4)
    producer = Producer(
        texts,
        targets,
        plan,
        FakeEncoder(),
        fake_invert,
        "fake",
        bounded=problem != "regression",
    )
    count = targets.shape[1]
    model = sharpen(make_classifier(count, dropout=0.0))
    model.config.problem_type = problem
    collator = {"num_labels": count, "problem_type": problem} | settings.pop("collator", {})
    return make_run(
        folder,
        model=model,
        dataset=make_dataset(texts, labels),
        producer=producer,
        collator=collator,
        **settings,
    )


def rows_of(run: Run, batch: dict[str, torch.Tensor]) -> list[tuple[str, torch.Tensor, bool]]:
    """Text, target and whether it is mixed, of every row of a recorded batch."""
    made = run.producer.produce(0, rows_per_epoch(run))
    texts = {tuple(tokens(text)): at for at, text in enumerate(run.producer.texts)}
    rows = []
    for ids, mask, at in zip(
        batch["input_ids"], batch["attention_mask"], batch["mixup_rows"].tolist(), strict=True
    ):
        if at < 0:
            real = texts[tuple(ids[mask.bool()].tolist())]
            rows.append((run.producer.texts[real], run.producer.targets[real], False))
        else:
            rows.append((made[at].text, torch.tensor(made[at].label), True))
    return rows


@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize("problem", LABELS)
def test_a_step_is_the_one_done_by_hand(problem: str, weight: float, tmp_path: Path) -> None:
    run = build(
        problem, tmp_path, gradient_accumulation_steps=2, collator={"mixed_weight": weight}
    ).train()
    rows = [row for batch in run.batches.training for row in rows_of(run, batch)]
    assert sum(mixed for *_, mixed in rows) == ROWS
    model = copy.deepcopy(run.initial).eval()
    total = torch.zeros(())
    for text, target, mixed in rows:
        logits = model(input_ids=torch.tensor([tokens(text)])).logits[0]
        if problem == "regression":
            loss = (logits - target).square().mean()
        else:
            loss = F.binary_cross_entropy_with_logits(logits, target)
        total = total + (weight if mixed else 1.0) * loss
    total = total / len(rows)
    total.backward()
    assert run.logged("loss") == [pytest.approx(total.item(), abs=1e-4)]
    with torch.no_grad():
        for each in model.parameters():
            if each.grad is not None:
                each -= 0.5 * each.grad
    assert_close(weights(run.model), weights(model))
    assert_moved(weights(run.initial), weights(run.model))


@pytest.mark.parametrize("problem", LABELS)
def test_evaluation_is_the_plain_one(problem: str, tmp_path: Path) -> None:
    texts, _ = make_rows(ROWS)
    run = build(problem, tmp_path, trainer={"eval_dataset": make_dataset(texts, LABELS[problem])})
    run.train()
    measured = run.trainer.evaluate()["eval_loss"]
    logits = torch.cat([run.model(input_ids=torch.tensor([tokens(text)])).logits for text in texts])
    expected = row_losses(logits, run.producer.targets, problem).mean().item()
    assert measured == pytest.approx(expected, abs=1e-4)
    assert all("mixup_rows" not in batch for batch in run.batches.evaluation)


@pytest.mark.parametrize("problem", LABELS)
def test_what_does_not_fit_the_task_is_refused(problem: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`label_smoothing_factor` must be 0"):
        build(problem, tmp_path, label_smoothing_factor=0.1).train()
    with pytest.raises(ValueError, match="is for cross entropy"):
        build(problem, tmp_path, collator={"label_format": "labels"})
    with pytest.raises(ValueError, match=f"`problem_type` must be '{problem}'"):
        run = build(problem, tmp_path)
        run.model.config.problem_type = "single_label_classification"
        run.train()


def test_labels_of_single_tokens_are_refused(tmp_path: Path) -> None:
    config = make_classifier(3).config
    run = make_run(tmp_path, model=BertForTokenClassification(config))
    with pytest.raises(ValueError, match="BertForTokenClassification labels single tokens"):
        run.train()


@pytest.mark.parametrize("problem", LABELS)
def test_training_rows_in_empty_places_have_their_own_targets(problem: str, tmp_path: Path) -> None:
    targets = torch.tensor(LABELS[problem]).reshape(ROWS, -1)
    fill = RealRows(make_rows(ROWS)[0], targets, seed=0)
    callback = {"curriculum": "first:0", "fill": fill}
    run = build(problem, tmp_path, callback=callback, collator={"mixed_weight": 0.5}).train()
    batch = run.batches.training[1]
    assert batch["mixup_rows"].tolist() == [-1] * 8
    assert batch["mixup_weights"].tolist() == [1.0] * 8
    expected = [list(row.label) for row in fill.at(range(4, 8))]
    assert batch["soft_labels"][4:].tolist() == expected


def test_several_labels_have_a_contrastive_term(tmp_path: Path) -> None:
    """Pairs of rows are compared by the cosine of their labels."""
    callback = {"contrast": Contrast(2.0, rows="all")}
    problem = "multi_label_classification"
    run = build(problem, tmp_path, callback=callback, learning_rate=0.0).train()
    rows = rows_of(run, run.batches.training[0])
    states, losses = [], []
    for text, target, _ in rows:
        ids = torch.tensor([tokens(text)])
        states.append(run.model.base_model(input_ids=ids).last_hidden_state[0].mean(0))
        losses.append(row_losses(run.model(input_ids=ids).logits, target[None], problem))
    directions = F.normalize(torch.stack([target for _, target, _ in rows]), dim=-1)
    term = contrastive_loss(torch.stack(states), directions)
    expected = torch.cat(losses).mean() + 2 * term
    assert run.logged("loss")[0] == pytest.approx(expected.item(), abs=1e-4)


def test_numbers_have_no_contrastive_term(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`contrastive_weight` must be 0 for regression"):
        build("regression", tmp_path, callback={"contrast": Contrast(2.0)})
