"""The member `model`: a copy of the Trainer's model, trained on the real rows beforehand."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attaching import CLASSES, TEXTS, TOKENIZER, make_mixup, plain_trainer, tokenized
from tiny import make_classifier, make_dataset
from torch import nn
from torch.utils.data import DataLoader
from trainer_runs import LABELS, assert_identical, assert_moved, sharpen, weights
from transformers import DataCollatorWithPadding, Trainer

from mixup_hf import InversedMixup
from mixup_hf.data.targets import SINGLE_LABEL
from mixup_hf.errors import InvalidInput
from mixup_hf.judging.labels.pooling import with_floor
from mixup_hf.training.rehearsal import MAX_STEPS, Rehearsal

SETTINGS: dict[str, Any] = {
    "label_source": "committee",
    "committee": ("encoder", "model"),
    "on_unreadable": "off",
    "contrastive_weight": 0,
    "curriculum": "constant",
    "refill_every": 1,
}
ARGUMENTS: dict[str, Any] = {
    "max_steps": 6,
    "num_train_epochs": 3,
    "learning_rate": 1e-2,
    "optim": "adamw_torch",
    "save_strategy": "steps",
    "save_steps": 1,
}


def prepare(folder: Path, model: Any = None, **settings: Any) -> tuple[Trainer, InversedMixup]:
    model = model or sharpen(make_classifier(LABELS, dropout=0.2))
    trainer = plain_trainer(folder, model=model, arguments=ARGUMENTS)
    mixup = make_mixup(**(SETTINGS | settings))
    return trainer, mixup.attach(trainer, text_column="text")


def rows_of(trainer: Trainer) -> dict[tuple[int, int], Any]:
    callback = trainer.callback_handler.callbacks[-1]
    return {(row.epoch, row.index): row for row, _ in callback.used_rows()}


def assert_votes(copied: Rehearsal, rows: list[Any]) -> None:
    votes = with_floor(copied.predict([row.text for row in rows]).numpy(), SINGLE_LABEL)
    np.testing.assert_allclose(votes, [row.votes["model"] for row in rows], atol=1e-4)


def begin(trainer: Trainer, steps: int = 6) -> Rehearsal:
    """What happens when training begins."""
    trainer.state.max_steps = steps
    found = trainer.callback_handler.callbacks[-1].rehearsal
    dataset = trainer.get_train_dataloader().dataset
    found.begin(trainer.model, dataset, trainer.args, trainer.state)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, InversedMixup]:
    trainer, mixup = prepare(tmp_path_factory.mktemp("whole"))
    trainer.train()
    return trainer, mixup


def test_a_copy_trained_on_the_real_rows_votes(whole: tuple[Trainer, InversedMixup]) -> None:
    trainer, mixup = whole
    rows = rows_of(trainer)
    assert rows
    assert all(set(row.votes) == {"encoder", "model"} for row in rows.values())
    copied = mixup._rehearsal
    assert copied is not None
    assert_votes(copied, list(rows.values()))
    before = sharpen(make_classifier(LABELS, dropout=0.2))
    assert_moved(weights(before), weights(copied._model))
    assert not copied._model.training
    assert mixup.generate(3)  # after training, there is a copy


def test_the_copy_learns_the_real_rows(tmp_path: Path) -> None:
    trainer, _ = prepare(tmp_path)
    found = begin(trainer, 2 * MAX_STEPS).predict(TEXTS).argmax(1).tolist()
    assert np.mean(np.equal(found, CLASSES)) > 0.9


def test_model_random_states_and_hooks_are_left_as_they_were(tmp_path: Path) -> None:
    trainer, _ = prepare(tmp_path)
    before = weights(trainer.model)
    trainer.model.train()
    loader = trainer.get_train_dataloader()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    found = trainer.callback_handler.callbacks[-1].rehearsal
    found.begin(trainer.model, loader.dataset, trainer.args, trainer.state)
    found.predict(["the red market"])
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])
    assert_identical(before, weights(trainer.model))
    assert all(each.grad is None for each in trainer.model.parameters())
    assert trainer.model.training


def test_the_copy_depends_on_the_seed_and_the_weights_alone(tmp_path: Path) -> None:
    copies = []
    for name, torch_seed in (("a", 1), ("b", 2)):
        trainer, _ = prepare(tmp_path / name)
        torch.manual_seed(torch_seed)
        copies.append(weights(begin(trainer)._model))
    assert_identical(*copies)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_resumed_run_has_the_copy_of_the_first_one(
    step: int, whole: tuple[Trainer, InversedMixup], tmp_path: Path
) -> None:
    first, mixup = whole
    checkpoint = tmp_path / f"checkpoint-{step}"
    shutil.copytree(Path(str(first.args.output_dir)) / checkpoint.name, checkpoint)
    other = sharpen(make_classifier(LABELS, dropout=0.2, seed=9))
    trainer, again = prepare(tmp_path, model=other)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert mixup._rehearsal is not None and again._rehearsal is not None
    assert_identical(weights(again._rehearsal._model), weights(mixup._rehearsal._model))
    assert rows_of(trainer) == rows_of(first)
    assert_identical(weights(trainer.model), weights(first.model))
    assert (tmp_path / "checkpoint-6" / "mixup_hf" / "rehearsed.safetensors").is_file()


def test_checkpoints_share_one_file(whole: tuple[Trainer, InversedMixup]) -> None:
    folder = Path(str(whole[0].args.output_dir))
    files = [*folder.glob("**/rehearsed.safetensors")]
    assert len(files) == 7
    assert len({file.stat().st_ino for file in files}) == 1


def test_a_checkpoint_without_the_copy_is_refused(
    whole: tuple[Trainer, InversedMixup], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint-3"
    shutil.copytree(Path(str(whole[0].args.output_dir)) / checkpoint.name, checkpoint)
    (checkpoint / "mixup_hf" / "rehearsed.safetensors").unlink()
    trainer, _ = prepare(tmp_path)
    with pytest.raises(InvalidInput, match="would label rows in another way"):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def test_each_run_of_a_plugin_has_its_own_copy(tmp_path: Path) -> None:
    mixup = make_mixup(**SETTINGS)
    found = []
    for seed in (0, 1):
        model = sharpen(make_classifier(LABELS, dropout=0.2, seed=seed))
        trainer = plain_trainer(tmp_path / str(seed), model=model, arguments=ARGUMENTS)
        mixup.attach(trainer, text_column="text")
        trainer.train()
        assert mixup._rehearsal is not None
        assert_votes(mixup._rehearsal, list(rows_of(trainer).values()))
        found.append(weights(mixup._rehearsal._model))
    assert_moved(*found)


class Uncopied(nn.Module):
    """Has no copy: it always is itself."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner, self.config = model, model.config

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **rest: Any) -> Any:
        return self.inner(input_ids=input_ids, attention_mask=attention_mask)

    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("it is full of locks")


class Elsewhere(Uncopied):
    """Its copy has layers of its own, and runs those of the original."""

    def __deepcopy__(self, memo: Any) -> Any:
        copied = Uncopied(make_classifier(LABELS))
        copied.__dict__["forward"] = self.forward
        return copied


@pytest.mark.parametrize(
    ("kind", "reason"), [(Uncopied, "full of locks"), (Elsewhere, "runs the original's layers")]
)
def test_a_model_that_cannot_be_copied_is_refused(kind: Any, reason: str, tmp_path: Path) -> None:
    trainer, _ = prepare(tmp_path, model=kind(make_classifier(LABELS)))
    with pytest.raises(InvalidInput, match=f"cannot be copied: .*{reason}"):
        trainer.train()
    assert all(each.grad is None for each in trainer.model.parameters())


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    trainer, _ = prepare(tmp_path)
    trainer.model.is_quantized = True
    with pytest.raises(InvalidInput, match="weights are quantized"):
        begin(trainer)


def test_without_a_trainer_the_member_is_refused(tmp_path: Path) -> None:
    mixup = make_mixup(TEXTS, CLASSES, **SETTINGS)
    with pytest.raises(InvalidInput, match="where no Trainer has a model to copy"):
        mixup.generate(2)
    with pytest.raises(InvalidInput, match="where no Trainer has a model to copy"):
        next(mixup.stream(2))
    loader = DataLoader(
        make_dataset(TEXTS, CLASSES), batch_size=4, collate_fn=DataCollatorWithPadding(TOKENIZER)
    )
    loop = make_mixup(
        TEXTS, CLASSES, **(SETTINGS | {"contrastive_weight": None, "curriculum": None})
    )
    with pytest.raises(InvalidInput, match="where no Trainer has a model to copy"):
        loop.batches(loader, TOKENIZER, epoch=0)


def test_the_member_cannot_be_alone() -> None:
    with pytest.raises(InvalidInput, match="nobody could say how right it is"):
        make_mixup(committee=("model",))


def test_with_the_parents_labels_nothing_is_copied(tmp_path: Path) -> None:
    trainer, mixup = prepare(tmp_path, label_source="parents")
    assert trainer.callback_handler.callbacks[-1].rehearsal is None
    trainer.train()
    assert mixup._rehearsal is None


def test_several_labels_a_row(tmp_path: Path) -> None:
    from transformers import Trainer as Plain

    labels = [[1.0, 0.0, float(at % 2)] for at in range(len(TEXTS))]
    model = make_classifier(LABELS)
    model.config.problem_type = "multi_label_classification"
    trainer = plain_trainer(
        tmp_path, model=model, arguments=ARGUMENTS, train_dataset=tokenized(labels=labels)
    )
    assert isinstance(trainer, Plain)
    make_mixup(**SETTINGS).attach(trainer, text_column="text")
    trainer.train()
    votes = [row.votes["model"] for row in rows_of(trainer).values()]
    assert votes and all(abs(sum(each) - 1) > 1e-3 for each in votes)
