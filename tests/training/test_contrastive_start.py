"""The body is tuned contrastively on the training rows before the first step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attaching import make_mixup, plain_trainer
from tiny import make_classifier, make_dataset, word_tokenizer
from torch import Tensor, nn
from trainer_runs import LABELS, assert_identical, make_family, make_rows, tokens, weights

from mixup_hf import errors
from mixup_hf.training import contrastive_start
from mixup_hf.training.collator import MixupCollator
from mixup_hf.training.contrastive import contrastive_loss, last_token, mean_pool
from mixup_hf.training.contrastive_start import ContrastiveStart

TEXTS, CLASSES = make_rows(12, LABELS)
TARGETS = torch.eye(LABELS)[CLASSES]
BODY = "bert.encoder.layer.0.output.dense.weight"
STATE: Any = SimpleNamespace(global_step=0)


def begin(
    model: Any,
    texts: list[str] = TEXTS,
    state: Any = STATE,
    rate: float = 5e-5,
    *,
    fp16: bool = False,
    **settings: Any,
) -> ContrastiveStart:
    collator = MixupCollator(word_tokenizer(classifier=True), num_labels=LABELS)
    settings = {"max_steps": 40} | settings
    start = ContrastiveStart(texts, TARGETS, collator, **settings)
    arguments: Any = SimpleNamespace(learning_rate=rate, fp16=fp16)
    start.begin(model, make_dataset(texts, CLASSES), arguments, state)
    return start


@torch.no_grad()
def loss(model: Any) -> float:
    """The contrastive loss of all rows."""
    was, pooled = model.training, []
    model.eval()
    causal = hasattr(model, "score")
    for text in TEXTS:
        states = model.base_model(input_ids=torch.tensor([tokens(text)])).last_hidden_state
        pooled.append(last_token(states, None) if causal else mean_pool(states, None))
    model.train(was)
    return contrastive_loss(torch.cat(pooled), TARGETS).item()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: each.clone() for key, each in weights(model).items()}


@pytest.mark.parametrize("name", ["bert", "distilbert", "deberta", "llama"])
def test_the_body_of_every_family_is_tuned_and_its_head_is_not(name: str) -> None:
    model = make_family(name)
    before, apart = state_of(model), loss(model)
    model.train()
    model.base_model.eval()  # modes come back one by one
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    begin(model)
    torch.testing.assert_close(torch.rand(2), expected, atol=0, rtol=0)
    assert model.training and not model.base_model.training
    assert loss(model) < 0.99 * apart
    moved = {key for key, each in weights(model).items() if not torch.equal(each, before[key])}
    assert moved and not any(key.startswith(("classifier", "score", "pooler")) for key in moved)
    assert all(each.grad is None for each in model.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    found = []
    for seed in (0, 0, 1):
        model = make_family("bert")
        begin(model, seed=seed)
        found.append(state_of(model))
    assert_identical(found[0], found[1])
    assert not torch.equal(
        *(each["bert.encoder.layer.0.output.dense.weight"] for each in found[1:])
    )


def test_steps_are_counted_as_they_are_taken_and_in_a_resumed_run_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *args: taken.append(1) or step(self, *args)
    )
    for most, expected in ((40, 15), (4, 4)):
        taken.clear()
        assert begin(make_family("bert"), max_steps=most).steps == len(taken) == expected
    resumed: Any = SimpleNamespace(global_step=3)
    assert begin(make_family("bert"), state=resumed).steps == 15
    assert begin(make_family("llama"), optional=True).steps == 0
    assert begin(Bag(body=True), optional=True).steps == 0


def test_weights_that_are_not_trained_stay() -> None:
    model = make_family("bert")
    frozen = model.base_model.embeddings
    frozen.requires_grad_(False)
    before = state_of(frozen)
    begin(model)
    assert_identical(state_of(frozen), before)


@pytest.mark.parametrize(("rate", "expected"), [(1e-5, 2e-5), (5e-5, 1e-4), (2e-4, 1e-4)])
def test_the_learning_rate_is_twice_the_runs_and_at_most_the_encoders(
    monkeypatch: pytest.MonkeyPatch, rate: float, expected: float
) -> None:
    seen: list[float] = []
    monkeypatch.setattr(
        contrastive_start, "tune", lambda *args, **given: seen.append(given["learning_rate"])
    )
    begin(make_family("bert"), rate=rate)
    assert seen == [pytest.approx(expected)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_long_texts_are_read_by_64_tokens(side: str) -> None:
    mask = torch.ones(2, 70, dtype=torch.long)
    mask[1, slice(0, 68) if side == "left" else slice(2, 70)] = 0
    ids = torch.arange(140).view(2, 70)
    cut = contrastive_start._cut({"input_ids": ids, "attention_mask": mask, "other": ids[:, 0]})
    kept = slice(6, 70) if side == "left" else slice(0, 64)
    assert torch.equal(cut["input_ids"], ids[:, kept])
    assert cut["attention_mask"].sum(1).tolist() == [64, 2]
    assert cut["other"].shape == (2,)


@pytest.mark.parametrize("case", ["resumed", "decoder", "no body", "no states", "in shards"])
def test_what_cannot_or_must_not_be_tuned_is_left_alone(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = make_family("llama" if case == "decoder" else "bert")
    if case in ("no body", "no states"):
        model = Bag(body=case == "no states")
    if case == "in shards":
        monkeypatch.setattr("mixup_hf.runtime.is_sharded", lambda: True)
    before = state_of(model)
    state = SimpleNamespace(global_step=3 if case == "resumed" else 0)
    begin(model, state=state, optional=True)
    assert_identical(state_of(model), before)


@pytest.mark.parametrize("body", [False, True])
def test_a_model_without_states_is_refused_if_the_user_asked_for_it(body: bool) -> None:
    with pytest.raises(errors.InvalidInput, match="`contrastive_start` must be 0 .* got 'Bag'"):
        begin(Bag(body=body))


class Bag(nn.Module):
    """A classifier with one state a row, and none a token."""

    def __init__(self, *, body: bool) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(100, 8)
        self.head = nn.Linear(8, LABELS)
        if body:
            self.base_model = self.table

    def forward(self, input_ids: Any, **inputs: Any) -> Any:
        return {"logits": self.head(self.table(input_ids))}


def test_processes_take_the_main_ones_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, other = make_family("bert"), make_family("bert")
    begin(alone)
    told = dict(alone.named_parameters())
    monkeypatch.setattr("mixup_hf.runtime.world_size", lambda: 2)
    monkeypatch.setattr("mixup_hf.runtime.agree_on_weights", lambda state: told)
    begin(other, seed=5)  # kernels that differ, exaggerated
    assert_identical(state_of(other), state_of(alone))


def test_a_run_tunes_the_body_first_and_fits_the_head_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("mixup_hf.runtime.log", said.append)
    found = []
    for steps in (0, 0, 3):
        model = make_classifier(LABELS)
        with torch.no_grad():
            model.classifier.weight.mul_(0.01)
        trainer = plain_trainer(tmp_path, model=model, arguments={"learning_rate": 5e-5})
        make_mixup(contrastive_start=steps, head_start=True).attach(trainer)
        trainer.train()
        found.append(state_of(model))
    assert_identical(found[0], found[1])
    for name in (BODY, "classifier.weight"):
        assert not torch.equal(found[1][name], found[2][name])
    lines = [each for each in said if "body was tuned" in each or "the head starts" in each]
    tuned = [at for at, each in enumerate(lines) if "tuned contrastively on 12 rows" in each]
    fitted = [at for at, each in enumerate(lines) if "a linear fit to 12 training rows" in each]
    assert len(tuned) == 1 and len(fitted) == 3 and tuned[0] == fitted[2] - 1


@pytest.mark.parametrize("name", ["contrastive_start", "head_start"])
def test_starts_that_need_one_class_a_row_are_refused_for_other_tasks(
    tmp_path: Path, name: str
) -> None:
    from attaching import TEXTS as ROWS

    labels = [[1, 0, 1], [0, 1, 0]] * (len(ROWS) // 2)
    mixup = make_mixup(ROWS, labels, label_source="parents", **{name: 1})
    with pytest.raises(errors.InvalidInput, match=f"`{name}` must be left out unless each row has"):
        mixup.trainer_kwargs(word_tokenizer(classifier=True))


class Knows:
    """A head that knows the task, or does not."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer

    def knows(self, *_: Any) -> bool:
        return self.answer


@pytest.mark.parametrize(
    ("knows", "optional", "tuned"), [(1, 1, False), (1, 0, True), (0, 1, True)]
)
def test_a_model_whose_head_knows_the_task_is_left_alone_unless_asked_for(
    knows: int, optional: int, tuned: bool
) -> None:
    model = make_family("bert")
    before = state_of(model)
    start = begin(model, head=Knows(bool(knows)), optional=bool(optional))
    assert (start.steps > 0) == tuned
    assert torch.equal(model.state_dict()[BODY], before[BODY]) != tuned


def test_under_fp16_gradients_are_made_without_autocast() -> None:
    model, called = make_family("bert"), []
    plain = model.forward

    def original(**inputs: Any) -> Any:
        called.append("plain")
        return plain(**inputs)

    model._original_forward = original
    begin(model)
    assert not called
    begin(model, fp16=True)
    assert called


def test_a_frozen_body_is_left_as_it_is_unless_the_start_was_asked_for() -> None:
    model = make_classifier(LABELS)
    model.base_model.requires_grad_(False)
    before = weights(model)
    assert begin(model, optional=True).steps == 0
    assert_identical(weights(model), before)
    with pytest.raises(errors.InvalidInput, match="`contrastive_start` must be 0.*frozen"):
        begin(model, optional=False)
