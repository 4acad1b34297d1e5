"""Figures of generated rows: each is what it should be where the answer is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_llm, make_rows, word_tokenizer
from torch import Tensor
from typer.testing import CliRunner

from mixup_hf.cli.main import app
from mixup_hf.evaluation.perplexity import LanguageModel
from mixup_hf.evaluation.text_quality import Figure, measure_quality
from mixup_hf.evaluation.text_scores import self_bleu
from mixup_hf.intervals import Interval, bootstrap_interval, mean_over
from mixup_hf.mixing.interpolation import mix
from mixup_hf.types import MixedExample

COUNT, WIDTH = 40, 16


class Table:
    """Embeds texts that it was told of."""

    def __init__(self) -> None:
        self.known: dict[str, Tensor] = {}

    def encode(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([self.known[text] for text in texts])

    def mix_weights(self, lams: Tensor) -> Tensor:
        return lams.square()  # a ratio curve: where to decode is not what was asked for


class World:
    """Forty real rows of two classes far apart, and as many generated ones of one class each."""

    def __init__(self, place: Callable[[Tensor, Tensor, float, Tensor], Tensor]) -> None:
        draw = torch.Generator().manual_seed(0)
        self.table, self.rows = Table(), list[MixedExample]()
        self.texts = [f"real {row} has words {row % 7}" for row in range(COUNT)]
        self.targets = torch.eye(2)[[row % 2 for row in range(COUNT)]]
        middle = 2.0 * torch.eye(2, WIDTH)
        for row, text in enumerate(self.texts):
            self.table.known[text] = middle[row % 2] + 0.5 * torch.randn(WIDTH, generator=draw)
        lams = torch.rand(COUNT, generator=draw).tolist()
        for row, lam in enumerate(lams):
            parents = (row, (row + 2) % COUNT)
            ends = [self.table.known[self.texts[at]] for at in parents]
            text = f"made {row} of {row % 5} words"
            noise = torch.randn(WIDTH, generator=draw)
            self.table.known[text] = place(ends[0], ends[1], lam, noise)
            label = tuple(self.targets[row].tolist())
            self.rows.append(MixedExample(text, label, lam, parents, (lam, 1 - lam), 0, 0, row, ""))

    def figures(self, **settings: object) -> dict[str, Figure]:
        found = measure_quality(self.rows, self.texts, self.targets, self.table, **settings)
        return {figure.name: figure for figure in found}


def on_the_mix(first: Tensor, second: Tensor, lam: float, noise: Tensor) -> Tensor:
    return lam**2 * first + (1 - lam**2) * second


def value(figure: Figure) -> float:
    found = figure.generated
    return found.value if isinstance(found, Interval) else found


def test_sentences_that_lie_where_their_mixes_lay_are_at_one() -> None:
    figures = World(on_the_mix).figures()
    assert value(figures["cosine to the mix"]) == pytest.approx(1.0, abs=1e-5)
    # They lie at the square of what was asked for: in order, not on the line.
    assert value(figures["lambda-recovery: spearman"]) == pytest.approx(1.0, abs=0.02)
    assert value(figures["lambda-recovery: r2"]) < 0.99
    assert value(figures["label agreement"]) > 0.95
    assert figures["label agreement"].real.value > 0.9


def test_sentences_anywhere_are_at_nothing() -> None:
    figures = World(lambda first, second, lam, noise: noise).figures()
    assert abs(value(figures["cosine to the mix"])) < 0.3
    found = figures["lambda-recovery: spearman"].generated
    assert isinstance(found, Interval) and found.low < 0 < found.high
    agreement = figures["label agreement"].generated
    assert isinstance(agreement, Interval) and agreement.low < 0.5 < agreement.high


def test_rows_of_the_same_kind_cannot_be_told_apart_and_others_can() -> None:
    def of_its_class(first: Tensor, second: Tensor, lam: float, noise: Tensor) -> Tensor:
        return 2.0 * torch.eye(2, WIDTH)[first[:2].argmax()] + 0.5 * noise

    found = World(of_its_class).figures()["C2ST accuracy"].generated
    assert isinstance(found, Interval) and found.low < 0.6 and found.high > 0.4
    # Out of fold a copy is taken for what it was copied from.
    copies = World(lambda first, second, lam, noise: first - 0.05 * noise)
    assert value(copies.figures()["C2ST accuracy"]) < 0.4
    far = World(lambda first, second, lam, noise: first + 3.0)
    assert value(far.figures()["C2ST accuracy"]) > 0.95


def test_copies_are_seen_and_rows_that_stand_in_for_their_parents_are_not_judged_as_mixes() -> None:
    world = World(on_the_mix)
    world.rows = [
        replace(row, text=world.texts[row.parents[0]], mitigation="parent") for row in world.rows
    ]
    figures = world.figures()
    assert value(figures["copied"]) == 1.0
    assert not any("lambda" in name or "mix" in name for name in figures)


def test_perplexity_is_that_of_all_tokens_together() -> None:
    def log_likelihood(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        made = np.array([text.startswith("made") for text in texts])
        return np.where(made, 6.0, 2.0), np.where(made, 3, 2)

    figure = World(on_the_mix).figures(log_likelihood=log_likelihood)["perplexity"]
    assert value(figure) == pytest.approx(math.exp(2))
    assert figure.real.value == pytest.approx(math.exp(1))


def test_a_fault_in_the_classifier_is_not_taken_for_too_few_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("mixup_hf.judging.judges.classifier.ClassifierJudge._fit", fail)
    with pytest.raises(ValueError, match="a bug"):
        World(on_the_mix).figures()


def test_a_class_too_small_for_folds_leaves_the_agreement_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "mixup_hf")
    world = World(on_the_mix)
    world.targets = torch.eye(2)[[0] * (COUNT - 1) + [1]]
    assert "label agreement" not in world.figures()
    assert "label agreement is left out: a class has too few rows" in caplog.text


def test_what_cannot_be_measured_is_left_out_and_the_rest_is_there() -> None:
    world = World(on_the_mix)
    # Parents in every fold: no classifier is left that has not seen them.
    world.rows = [replace(row, parents=tuple(range(COUNT))) for row in world.rows]
    assert "label agreement" not in world.figures()
    world = World(on_the_mix)
    world.rows = [replace(row, lam=0.3, shares=(0.3, 0.7)) for row in world.rows]
    assert not any("lambda" in name for name in world.figures())  # one ratio has no line
    world.rows = [replace(row, parents=(0, 2)) for row in world.rows]
    figures = world.figures()
    assert "C2ST accuracy" not in figures and "words" in figures  # two real rows


def test_ratios_beyond_the_parents_are_not_held_against_what_lies_between_them() -> None:
    world = World(lambda first, second, lam, noise: lam * first + (1 - lam) * second)
    for at in range(0, COUNT, 3):
        row = world.rows[at]
        world.rows[at] = replace(row, lam=1.3, shares=(1.3, -0.3))
    figures = world.figures()
    assert value(figures["lambda-recovery: slope"]) == pytest.approx(1.0, abs=0.1)


def test_mixes_are_compared_with_what_was_decoded() -> None:
    def on_the_sphere(first: Tensor, second: Tensor, lam: float, noise: Tensor) -> Tensor:
        return mix(
            torch.stack([first, second])[None], torch.tensor([[lam**2, 1 - lam**2]]), "slerp"
        )[0]

    world = World(on_the_sphere)
    world.rows = [replace(row, interpolation="slerp") for row in world.rows]
    assert value(world.figures()["cosine to the mix"]) == pytest.approx(1.0, abs=1e-5)


def test_too_few_rows_are_refused() -> None:
    world = World(on_the_mix)
    world.rows = world.rows[:19]
    with pytest.raises(ValueError, match="`rows` must be at least 20, but got 19"):
        world.figures()


def test_self_bleu_is_one_of_copies_and_nothing_of_strangers() -> None:
    assert self_bleu(["a b c d"] * 3, 4) == pytest.approx(1.0)
    assert self_bleu(["a b c d", "e f g h", "i j k l"], 4) == 0.0
    # Long texts that end alike are cut before they do.
    assert self_bleu(["a b x y z", "c d x y z"], 2) == 0.0


def test_an_interval_holds_its_figure() -> None:
    found = bootstrap_interval(mean_over(np.arange(50.0)), 50)
    assert found.low < found.value == 24.5 < found.high


def test_a_language_model_reads_each_text_alone_whatever_stands_beside_it(tmp_path: Path) -> None:
    llm, tokenizer = make_llm(), word_tokenizer(classifier=False)
    llm.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["bank market", "the film star was on the news", "goal"]
    losses, tokens = LanguageModel(str(tmp_path))(texts)
    opening = tokenizer.bos_token_id
    opening = tokenizer.eos_token_id if opening is None else opening
    for text, loss, count in zip(texts, losses, tokens, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert count == len(ids)
        with torch.no_grad():
            logits = llm(torch.tensor([[opening, *ids]])).logits[0, :-1].log_softmax(-1)
        expected = -logits[torch.arange(len(ids)), torch.tensor(ids)].sum()
        assert loss == pytest.approx(float(expected), rel=1e-4)


def test_the_command_measures_rows_of_a_file(
    tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    texts, labels = make_rows(24)
    data, rows = tmp_path / "rows.jsonl", tmp_path / "made.jsonl"
    lines = [{"text": text, "label": str(label)} for text, label in zip(texts, labels, strict=True)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    aligner = str(saved_aligner())
    shared = ["--data", str(data), "--aligner", aligner]
    words = ["augment", *shared, "--num-samples", "24", "--output", str(rows)]
    made = CliRunner().invoke(app, words)
    assert made.exit_code == 0, made.output
    words = ["evaluate", "--quality", *shared, "--rows", str(rows), "--output-dir", str(tmp_path)]
    result = CliRunner().invoke(app, [*words, "--perplexity", str(tmp_path / "llm")])
    assert result.exit_code == 0, result.output
    assert "Generated rows beside the real ones" in result.output
    figures = json.loads((tmp_path / "quality.json").read_text())["figures"]
    assert {"words", "self-BLEU", "perplexity", "C2ST accuracy"} <= {
        figure["name"] for figure in figures
    }
    alone = CliRunner().invoke(app, ["evaluate", "--quality", *shared])
    assert isinstance(alone.exception, ValueError) and "--rows" in str(alone.exception)
