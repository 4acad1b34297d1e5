"""The arms against which generated rows must hold, and what all arms have in common."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from experiment_data import NAMES, TRAINING
from tiny import make_llm, word_tokenizer

from mixup_hf import registry
from mixup_hf.data.row_files import read_mixed
from mixup_hf.data.tables import draw_shots, read_table
from mixup_hf.evaluation.experiment.config import ExperimentConfig
from mixup_hf.evaluation.experiment.runner import Experiment, Job, Run
from mixup_hf.evaluation.experiment.task import Task
from mixup_hf.training import committee as committee_module

Make = Callable[..., ExperimentConfig]
STILL = TRAINING | {"learning_rate": 0.0}
COMMITTEE = {"committee": ["encoder", "knn"]}


def run(config: ExperimentConfig) -> dict[str, Run]:
    return {job.arm: each for job, each in Experiment(config).run().items()}


def rows_of(config: ExperimentConfig, arm: str) -> tuple[list[Any], Any]:
    train = draw_shots(read_table(config.sets["tiny"].train_file or "", "text", "label"), 4, 0)
    folder = Path(config.output_dir) / "tiny" / "4-shot" / "seed-0" / arm
    return read_mixed(folder / "rows.jsonl", train.texts, sorted(NAMES)), train


def test_smoothing_is_in_training_and_not_in_the_loss_that_is_reported(make: Make) -> None:
    still = run(make(arms=["label_smoothing"], seeds=[0], training=STILL))
    assert still["label_smoothing"].metrics["loss"] == still["oversample"].metrics["loss"]


def test_smoothing_changes_what_is_learned(make: Make) -> None:
    runs = run(make(arms=["label_smoothing"], seeds=[0]))
    assert runs["label_smoothing"].metrics["loss"] != runs["oversample"].metrics["loss"]


def test_compared_arms_take_nothing_from_what_mixup_adds(make: Make, tmp_path: Path) -> None:
    added = {"contrastive_weight": 2.0, "curriculum": "first:0.5", "label_source": "committee"}
    with_it = run(make(seeds=[0], mixup=added | COMMITTEE, output_dir=str(tmp_path / "other")))
    without = run(make(seeds=[0]))
    for arm in ("none", "oversample"):
        assert with_it[arm].metrics["loss"] == without[arm].metrics["loss"]


def test_the_contrastive_term_changes_what_is_learned(make: Make) -> None:
    runs = run(make(arms=["contrastive"], seeds=[0]))
    assert runs["contrastive"].metrics["loss"] != runs["oversample"].metrics["loss"]


def test_copies_carry_the_committees_labels(make: Make) -> None:
    config = make(arms=["self_distillation"], seeds=[0], mixup=COMMITTEE)
    experiment = Experiment(config)
    experiment.run()
    rows, train = rows_of(config, "self_distillation")
    task, _ = experiment._task(Job("tiny", 4, 0, "self_distillation"))
    labels = experiment.models.committee(task, train.texts).label(train.texts).labels.numpy()
    for row in rows:
        (parent,) = row.parents
        assert row.text == train.texts[parent]
        assert np.allclose(row.label, labels[parent], atol=1e-3)
    assert any(max(row.label) < 0.999 for row in rows)


def test_a_committee_is_fitted_once_for_all_arms_on_the_same_rows(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []
    fit = committee_module.fit_committee

    def counted(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        fitted.append(inputs.seed)
        return fit(inputs, *args, **kwargs)

    monkeypatch.setattr(committee_module, "fit_committee", counted)
    labelled = {"label_source": "committee"} | COMMITTEE
    config = make(arms=["committee", "self_distillation", "default"], mixup=labelled)
    runs = Experiment(config).run()
    assert len(runs) == 8 and fitted == [0, 1]


def test_the_committee_predicts_and_nothing_is_trained(make: Make) -> None:
    found = run(make(arms=["committee"], seeds=[0], mixup=COMMITTEE))["committee"]
    assert found.metrics["steps"] == found.metrics["mixed_rows"] == 0
    assert found.metrics["accuracy"] == pytest.approx(sum(found.correct) / 12)
    assert 0 < found.metrics["loss"] < 10 and 0 <= found.metrics["train_accuracy"] <= 1


def test_predictions_of_the_wrong_shape_are_refused(make: Make) -> None:
    @registry.register("arm", "short", help="predicts too little")
    def short(task: Task) -> Any:
        return SimpleNamespace(predict=lambda texts: np.ones((len(texts), 2)))

    try:
        with pytest.raises(ValueError, match=r"`predict` must return probabilities of shape"):
            Experiment(make(arms=["short"], seeds=[0])).run()
    finally:
        registry.unregister("arm", "short")


class FakeSetFit:
    """The names of the library that the arm uses; predicts the second class."""

    TrainingArguments = staticmethod(lambda **given: SimpleNamespace(**given))
    seen: dict[str, Any] = {}

    class SetFitModel:
        @classmethod
        def from_pretrained(cls, path: str, device: str) -> Any:
            table = SimpleNamespace(requires_grad_=lambda flag: FakeSetFit.seen.update(table=flag))
            model = SimpleNamespace(get_input_embeddings=lambda: table)
            body: Any = type("Body", (list,), {})([SimpleNamespace(auto_model=model)])
            return SimpleNamespace(
                model_body=body,
                model_head=SimpleNamespace(classes_=np.array([0, 1, 2])),
                predict_proba=cls.predict_proba,
            )

        @staticmethod
        def predict_proba(texts: Sequence[str], as_numpy: bool) -> np.ndarray:
            return np.tile([0.2, 0.5, 0.3], (len(texts), 1))

    class Trainer:
        def __init__(self, model: Any, args: Any, train_dataset: Any) -> None:
            FakeSetFit.seen.update(args=args, rows=train_dataset, body=model.model_body)

        def train(self) -> None: ...


def test_setfit_takes_as_many_steps_on_the_same_rows(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "setfit", FakeSetFit)
    config = make(arms=["setfit"], seeds=[0], freeze_embeddings=True)
    found = run(config)["setfit"]
    _, train = rows_of(config, "oversample")
    assert FakeSetFit.seen["args"].max_steps == 3
    assert FakeSetFit.seen["body"].max_seq_length == 32 and FakeSetFit.seen["table"] is False
    assert FakeSetFit.seen["rows"]["text"][:] == train.texts
    assert found.metrics["loss"] > 0 and found.metrics["mixed_rows"] == 0


def test_setfit_is_left_out_unless_it_is_asked_for(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make()
    assert "setfit" not in ExperimentConfig(sets=config.sets, output_dir="out").arms
    monkeypatch.setitem(sys.modules, "setfit", None)
    with pytest.raises(ImportError, match=r"mixup_hf\[benchmarks\]"):
        run(make(arms=["setfit"], seeds=[0]))


def test_copies_of_rarer_classes_even_out_the_batches(make: Make) -> None:
    config = make(
        arms=["oversample_minority"], shots=[9], seeds=[0], imbalance=9, rows=400, training=STILL
    )
    experiment = Experiment(config)
    task, _ = experiment._task(Job("tiny", 9, 0, "oversample_minority"))
    sizes = Counter(task.train.labels)
    (rare,) = [name for name, count in sizes.items() if count == 1]
    experiment.run()
    folder = Path(config.output_dir) / "tiny" / "9-shot" / "seed-0" / "oversample_minority"
    rows = read_mixed(folder / "rows.jsonl", task.train.texts, task.names)
    copies = Counter(task.names[row.hard_label] for row in rows)
    share = (sizes[rare] / len(task.train) + copies[rare] / len(rows)) / 2
    assert share == pytest.approx(1 / 3, abs=0.04)


def test_wrong_labels_and_texts_without_labels_reach_the_arms(make: Make) -> None:
    config = make(seeds=[0], label_noise=0.25, unlabeled=7)
    task, _ = Experiment(config)._task(Job("tiny", 4, 0, "default"))
    clean = draw_shots(read_table(config.sets["tiny"].train_file or "", "text", "label"), 4, 0)
    wrong = [a != b for a, b in zip(task.train.labels, clean.labels, strict=True)]
    assert task.train.texts == clean.texts and sum(wrong) == 3
    assert task.names == sorted(NAMES) and len(task.unlabeled) == 7
    assert "25% of the training labels wrong" in config.regime
    assert "7 texts without labels" in config.regime


def test_unlabelled_text_is_used_by_arms_with_a_committee(make: Make) -> None:
    as_it_is = {"label_source": "committee", "unlabeled_share": 1.0} | COMMITTEE
    config = make(arms=["smotext", "default"], seeds=[0], unlabeled=8, mixup=as_it_is)
    experiment = Experiment(config)
    task, _ = experiment._task(Job("tiny", 4, 0, "default"))
    plugins = {name: registry.get("arm", name)(task) for name in ("default", "smotext")}
    assert plugins["smotext"].config.label_source == "parents"
    assert not plugins["smotext"].unlabeled_texts
    assert set(plugins["default"].unlabeled_texts) <= set(task.unlabeled)
    assert plugins["default"].unlabeled_texts


def test_a_decoder_is_trained_by_a_lora(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "decoder"
    make_llm().save_pretrained(folder)
    word_tokenizer(classifier=False).save_pretrained(folder)
    config = make(arms=["default"], seeds=[0], model=str(folder), lora={"r": 2, "lora_alpha": 4})
    runs = run(config)
    assert {each.metrics["steps"] for each in runs.values()} == {3}
    assert runs["default"].metrics["loss"] != runs["oversample"].metrics["loss"]
    assert "a LoRA of rank 2 and the head" in config.regime
