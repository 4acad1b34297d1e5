"""The report's sections on the committee, the curriculum and the paired baseline."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixup_hf.evaluation.report import drawing
from mixup_hf.evaluation.report.baseline import baseline_section, tiles_of
from mixup_hf.evaluation.report.committee import (
    Voted,
    agreement,
    committee_section,
    disagreement,
)
from mixup_hf.evaluation.report.course import course_section
from mixup_hf.evaluation.report.html import report_of_a_run
from mixup_hf.evaluation.report.pages import PlotOf, Section, TableOf, VotesOf

NAMES = ["film", "news", "sport"]
COMMITTEE = {
    "members": {
        "encoder": {"weight": 1.25, "accuracy": 0.8},
        "model": {"weight": 0.8, "accuracy": None},
    },
    "accuracy": 0.85,
    "rows": 60,
    "temperature": 1.5,
}


def scores(accuracy: float, loss: float) -> dict[str, Any]:
    return {"test_accuracy": accuracy, "test_loss": loss, "test_rows": 40, "steps": 16}


def metrics(**changes: Any) -> dict[str, Any]:
    """As `finetune` with `compare` writes them."""
    ours, others = scores(0.75, 0.7), scores(0.7, 0.9)
    compared: dict[str, dict[str, float]] = {
        name: {
            "mixup": ours[name],
            "baseline": others[name],
            "difference": ours[name] - others[name],
        }
        for name in ("test_accuracy", "test_loss")
    }
    compared["test_loss"] |= {"low": -0.3, "high": -0.1}
    found = {"metrics": compared, "test": "mcnemar", "p": 0.625}
    found |= {"only_mixup_correct": 5, "only_baseline_correct": 3}
    known = {"baseline": others, "comparison": found, "committee": COMMITTEE}
    return ours | known | {"problem_type": "single_label_classification"} | changes


def of(section: Section, title: str) -> Any:
    return next(block for block in section.blocks if block.title == title)


def texts_of(svg: str) -> list[str]:
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def voted(text: str, **votes: list[float]) -> Voted:
    return Voted(text, [0.1, 0.2, 0.7], votes, NAMES)


ALIKE = voted("goal", encoder=[0.1, 0.1, 0.8], llm=[0.1, 0.1, 0.8])
APART = voted("a film about a cup", encoder=[0.9, 0.1, 0.0], llm=[0.0, 0.1, 0.9])


def test_the_baseline_is_beside_the_run() -> None:
    section = baseline_section(metrics(), Path("runs/mine"))
    table = of(section, "All scores")
    assert table.rows[1] == ("negative log-likelihood", "0.700", "0.900", "-0.200 [-0.300, -0.100]")
    assert table.rows[0][-1] == "+0.050"  # no interval in files of earlier versions
    assert "16 steps" in section.note and "One seed" in table.note
    drawn = texts_of(of(section, "Test scores").svg)
    assert {"0.750", "0.700", "0.900", "with mixing", "without"} <= set(drawn)
    drawn = texts_of(of(section, "Which test rows").svg)
    # 30 of 40 right, 5 of them alone; 28 for the baseline, 3 of them alone
    assert {"both right: 25", "only with mixing: 5", "only without: 3", "both wrong: 7"} <= set(
        drawn
    )
    assert "p = 0.625" in of(section, "Which test rows").note
    assert [(tile.value, tile.note) for tile in tiles_of(metrics())] == [
        ("0.750", "0.700 without"),
        ("0.700", "0.900 without"),
    ]


def test_without_a_baseline_there_is_no_such_section() -> None:
    alone = scores(0.75, 0.7)
    assert not baseline_section(alone, Path("mine")).blocks
    assert [tile.note for tile in tiles_of(alone)] == ["", ""]


def test_regression_has_no_rows_that_are_right() -> None:
    names = ("test_mae", "test_loss")
    found = {
        "metrics": {name: {"mixup": 0.5, "baseline": 0.6, "difference": -0.1} for name in names},
        "test": "wilcoxon",
        "p": 0.031,
    }
    run = {"test_mae": 0.5, "test_loss": 0.5, "test_rows": 40, "steps": 16}
    section = baseline_section(run | {"baseline": run, "comparison": found}, Path("mine"))
    assert [block.title for block in section.blocks] == ["Test scores", "All scores"]
    assert "Wilcoxon" in section.blocks[-1].note and "p = 0.031" in section.blocks[-1].note


def test_the_curriculum_is_what_was_counted(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"step": 4, "loss": 1.0, "mixup_hf/generated_share": 0.5, "mixup_hf/loss_real": 0.9},
        {"step": 8, "loss": 0.8, "mixup_hf/generated_share": 0.25},
        {"step": 8, "eval_loss": 0.7},
        {"step": 10, "loss": 0.5, "mixup_hf/generated_share": 0.0},
    ]
    (tmp_path / "history.json").write_text(json.dumps(lines))
    section = course_section(tmp_path)
    # (4 * 0.5 + 4 * 0.25 + 2 * 0) / 10
    assert "30% over 10 steps, the last ones at step 8 or before" in of(section, "Curriculum").note
    assert {"real rows", "evaluation"} <= set(texts_of(of(section, "Loss").svg))


def test_a_trainer_state_will_do(tmp_path: Path) -> None:
    for step in (9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        line = {"step": step, "loss": 1.0, "mixup_hf/generated_share": 0.5}
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": [line]}))
    (tmp_path / "checkpoint-best").mkdir()
    assert "over 10 steps" in of(course_section(tmp_path), "Curriculum").note
    assert not course_section(tmp_path / "checkpoint-best").blocks


def test_the_committee_and_its_votes_are_shown() -> None:
    section = committee_section(metrics(), [ALIKE, APART, ALIKE])
    drawn = texts_of(of(section, "Members").svg)
    assert {"encoder", "model", "together", "80%", "85%", "1.25", "0.80"} <= set(drawn)
    assert "temperature 1.50" in section.note
    votes = of(section, "Votes")
    assert [text for text, _ in votes.texts] == ["goal", "a film about a cup", "goal"]
    bars = votes.texts[1][1]
    assert [bar.who for bar in bars] == ["label", "encoder", "llm"]
    assert [bar.verdict for bar in bars] == ["sport 0.70", "film 0.90", "sport 0.90"]
    assert [name for _, _, name in bars[1].parts] == ["film", "news"]  # nothing of 0
    assert of(section, "Where members disagree most").texts[0][0] == "a film about a cup"
    assert "67%" in texts_of(of(section, "Where members agree").svg)


def test_disagreement_is_in_bits() -> None:
    assert disagreement([[0.5, 0.5], [0.5, 0.5]]) == pytest.approx(0)
    assert disagreement([[1.0, 0.0], [0.0, 1.0]]) == pytest.approx(1)
    first, second = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.6, 0.4], [0.7, 0.3]])
    expected = [[1.0, 0.5], [0.5, 1.0]]
    np.testing.assert_allclose(agreement({"a": first, "b": second}), expected)


def test_the_rarest_of_many_classes_share_a_colour() -> None:
    names = [f"class {at}" for at in range(9)]
    label = [0.3 - 0.03 * at for at in range(9)]
    row = Voted("text", label, {"encoder": label}, names)
    votes = of(committee_section({}, [row]), "Votes")
    assert votes.legend[-1] == (6, "other classes") and len(votes.legend) == 7
    assert {at for at, name in ((c, n) for _, c, n in votes.texts[0][1][0].parts)} == set(range(7))


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification"])
def test_votes_are_shown_where_a_row_has_one_class(kind: str) -> None:
    section = committee_section(metrics(problem_type=kind), [ALIKE])
    assert [block.title for block in section.blocks] == ["Members"]
    assert not committee_section({}, []).blocks


def test_without_matplotlib_tables_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "available", lambda: False)
    section = committee_section(metrics(), [ALIKE, APART])
    kinds = [type(block) for block in section.blocks]
    assert kinds == [TableOf, VotesOf, VotesOf] and PlotOf not in kinds
    assert section.blocks[0].rows[0] == ("encoder", "0.80", "1.25")  # type: ignore[union-attr]


def test_plots_take_the_colours_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(metrics()))
    page = report_of_a_run(tmp_path)
    assert "<td>accuracy</td>" in page and page.count("Test scores") == 2  # title and its label
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert "var(--c0" in drawn and "currentColor" in drawn
    assert not re.findall(r"(?:fill|stroke): #(?!000)", drawn)  # of ours, none stays as it was
    assert "prefers-color-scheme: dark" in page


def test_a_run_with_several_labels_per_row_has_a_page(tmp_path: Path) -> None:
    run = {"test_micro_f1": 0.5, "test_rows": 40, "problem_type": "multi_label_classification"}
    (tmp_path / "metrics.json").write_text(json.dumps(run))
    page = report_of_a_run(tmp_path)
    assert "40 test rows, one seed." in page and "<td>micro F1</td>" in page
