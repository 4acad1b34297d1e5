"""A head that is fitted to the training rows before the first step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_classifier, make_dataset, word_tokenizer
from torch import Tensor
from torch.nn import functional as F
from trainer_runs import LABELS, make_family, make_rows, sharpen, tokens, weights

from mixup_hf.judging.labels.heads import fit_linear
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.head_start import HeadStart

TEXTS, CLASSES = make_rows(12, LABELS)
ARGUMENTS: Any = SimpleNamespace(eval_batch_size=5, bf16=False, learning_rate=5e-5)
STATE: Any = SimpleNamespace(global_step=0)
TARGETS = torch.eye(LABELS)[CLASSES]


def begin(
    model: Any, targets: Tensor = TARGETS, state: Any = STATE, arguments: Any = ARGUMENTS
) -> None:
    collator = MixupCollator(word_tokenizer(classifier=True), num_labels=LABELS)
    start = HeadStart(TEXTS, targets, collator)
    start.begin(model, make_dataset(TEXTS, CLASSES), arguments, state)


@torch.no_grad()
def loss(model: Any) -> float:
    was, rows = model.training, []
    model.eval()
    for text in TEXTS:
        rows.append(model(input_ids=torch.tensor([tokens(text)]))["logits"][0])
    model.train(was)
    return F.cross_entropy(torch.stack(rows), torch.tensor(CLASSES)).item()


def new_model(name: str = "bert") -> Any:
    model = make_family(name)
    head = getattr(model, "score", None) or model.classifier
    with torch.no_grad():
        getattr(head, "out_proj", head).weight.mul_(0.01)  # it knows nothing
    return model


@pytest.mark.parametrize("name", ["bert", "distilbert", "deberta", "llama"])
def test_the_head_of_every_family_is_fitted_and_nothing_else(name: str) -> None:
    model = new_model(name).train()
    before, guess = {key: each.clone() for key, each in weights(model).items()}, loss(model)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    begin(model)
    torch.testing.assert_close(torch.rand(2), expected, atol=0, rtol=0)
    assert model.training
    assert loss(model) < guess - 0.02
    moved = {key for key, each in weights(model).items() if not torch.equal(each, before[key])}
    assert moved and all(key.startswith(("classifier", "score")) for key in moved)


@pytest.mark.parametrize(
    ("rate", "frozen", "warns"), [(1e-4, False, False), (2e-4, False, True), (2e-4, True, False)]
)
def test_a_rate_that_is_too_high_for_a_whole_model_is_named(
    monkeypatch: pytest.MonkeyPatch, rate: float, frozen: bool, warns: bool
) -> None:
    said: list[str] = []
    monkeypatch.setattr("mixup_hf.runtime.warn", said.append)
    model = new_model()
    for name, weight in model.named_parameters():
        weight.requires_grad = not frozen or name.startswith("classifier")
    begin(model, arguments=SimpleNamespace(**vars(ARGUMENTS) | {"learning_rate": rate}))
    assert ["learning rate is 0.0002" in line for line in said] == [True] * warns


def test_a_head_that_knows_the_task_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = new_model()
    begin(model)
    with torch.no_grad():
        model.classifier.weight.mul_(1.1)  # another fit would undo this
    before = {key: each.clone() for key, each in weights(model).items()}
    assert loss(model) < 0.99 * np.log(LABELS)
    monkeypatch.setattr("mixup_hf.training.head_start._KNOWS_NOTHING", 0.99)
    begin(model)
    assert all(torch.equal(each, before[key]) for key, each in weights(model).items())


@pytest.mark.parametrize("case", ["resumed", "frozen", "no linear head"])
def test_what_cannot_or_must_not_be_fitted_is_left_alone(case: str) -> None:
    model, state = new_model(), STATE
    if case == "resumed":
        state = SimpleNamespace(global_step=3)
    elif case == "frozen":
        model.classifier.requires_grad_(False)
    else:
        model.classifier.register_forward_hook(lambda layer, args, output: 2 * output)
        for each in model.modules():
            if isinstance(each, torch.nn.Linear) and each is not model.classifier:
                each.requires_grad_(False)
        model = Doubled(model)
    before = {key: each.clone() for key, each in weights(model).items()}
    begin(model, state=state)
    assert all(torch.equal(each, before[key]) for key, each in weights(model).items())


class Doubled(torch.nn.Module):
    """A model whose logits are no output of a layer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        return {"logits": self.model(**inputs)["logits"] + 1.0}


@pytest.mark.parametrize("classes", [[0, 1] * 6, [0, 2] * 6, [0, 1, 2] * 4, [0] * 9 + [2] * 3])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("balanced", [True, False])
def test_a_linear_fit_predicts_as_scikit_learn_does(
    classes: list[int], intercept: bool, balanced: bool
) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(12, 5)), np.array(classes)
    weight, bias = fit_linear(rows, labels, 1.0, 3, intercept=intercept, balanced=balanced)
    scores = torch.from_numpy(rows @ weight.T + bias)
    settings = {"class_weight": "balanced"} if balanced else {}
    reference = LogisticRegression(C=1.0, fit_intercept=intercept, max_iter=1000, **settings)
    reference.fit(rows, labels)
    expected = reference.predict_proba(rows)
    found = scores[:, reference.classes_].softmax(-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if intercept:
        assert weight.shape == (3, 5) and bias.shape == (3,)
    else:
        assert not bias.any()


def test_a_run_starts_from_the_fitted_head(tmp_path: Path) -> None:
    from attaching import make_mixup, plain_trainer

    model = sharpen(make_classifier(LABELS))
    with torch.no_grad():
        model.classifier.weight.mul_(0.01)
    starts = []
    for setting in (True, False):
        copied = make_classifier(LABELS)
        copied.load_state_dict(model.state_dict())
        trainer = plain_trainer(tmp_path, model=copied, arguments={"learning_rate": 0.0})
        make_mixup(head_start=setting).attach(trainer)
        trainer.train()
        starts.append(weights(copied)["classifier.weight"].clone())
    assert torch.equal(starts[1], model.classifier.weight)
    assert not torch.allclose(starts[0], starts[1])


def test_a_class_of_few_rows_among_many_is_in_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixup_hf.training.head_start.MAX_ROWS", 40)
    count = 400
    texts = [f"text {row}" for row in range(count)]
    targets = torch.eye(2)[[int(row == 7) for row in range(count)]]
    collator = MixupCollator(word_tokenizer(classifier=True), num_labels=2)
    for seed in range(20):
        rows = HeadStart(texts, targets, collator, seed)._rows
        assert len(rows) < 60 and any(row.text == "text 7" for row in rows)


def test_rows_of_one_class_alone_leave_the_head_alone() -> None:
    model = new_model()
    before = {key: each.clone() for key, each in weights(model).items()}
    begin(model, torch.eye(LABELS)[[1] * len(TEXTS)])
    assert all(torch.equal(each, before[key]) for key, each in weights(model).items())
