"""The report: everything in one file, and nothing in it that is not escaped or measured."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tiny import make_encoder, make_producer, make_rows
from typer.testing import CliRunner

from mixup_hf.cli import main as cli
from mixup_hf.data.row_files import mixed_json
from mixup_hf.evaluation.experiment.runner import Job, Run
from mixup_hf.evaluation.experiment.summary import summarise, together
from mixup_hf.evaluation.privacy import Audit
from mixup_hf.evaluation.report.html import report_of_a_run, report_of_an_experiment
from mixup_hf.evaluation.text_scores import copied_share, matched_variety, variety
from mixup_hf.intervals import Interval, rounded, wilson

NAMES = ["news", "film", "sport"]
TEXTS, _ = make_rows(24)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """A folder as `mixup-hf finetune` leaves it."""

    def made(**changes: Any) -> Path:
        folder = tmp_path / "a-run"
        folder.mkdir(exist_ok=True)
        metrics = {"test_accuracy": 0.75, "test_macro_f1": 0.7, "test_rows": 40, "seed": 3}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        history = [
            {"step": 1, "loss": 1.0},
            {"step": 2, "loss": 0.5},
            {"step": 2, "eval_loss": 0.6},
        ]
        (folder / "history.json").write_text(json.dumps(history))
        rows = make_producer(24).produce(0, 30)
        lines = [mixed_json(row, TEXTS, NAMES) for row in rows]
        lines[0] |= {"judges": {"knn": [0.2, 0.3, 0.5]}, "events": ["conflict"]} | changes
        (folder / "mixed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return made


class Page(HTMLParser):
    """Collects what a browser would fetch, and the tags that are open at the end."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched += [str(given[name]) for name in ("src", "srcset", "data") if name in given]
        if tag in ("link", "script", "iframe", "img"):
            self.fetched.append(tag)
        if tag in ("table", "figure", "details", "svg", "body"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_a_report_holds_all_it_shows(run: Callable[..., Path]) -> None:
    page = report_of_a_run(run(), make_encoder())
    found = Page(page)
    assert found.fetched == [] and found.open == []
    assert not re.findall(r"url\((?!#)|@import", page)
    assert page.count("<svg") == 4  # loss, ratios, doubtful, map
    for heading in (
        "Test scores",
        "Variety",
        "What was generated",
        "Ratios",
        "Map of the embeddings",
    ):
        assert re.search(f"<h[23]>{heading}</h[23]>", page)
    assert "Accuracy 75.0% on 40 test rows (95 % interval 59.8% to 85.8%)" in page
    assert "10 more" in page  # of thirty, twenty are shown at once
    assert "<th>found</th>" in page and ">conflict</span>" in page
    assert page.rindex("<svg") < page.index("<details>")  # nobody scrolls past all to see the plots


def test_training_rows_on_the_map_have_their_colour_if_the_file_tells_it(
    run: Callable[..., Path],
) -> None:
    note = "Grey: this file does not tell the class."
    assert note in report_of_a_run(run(), make_encoder())  # of soft labels, one cannot know
    file = run() / "mixed.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    told = [row | {"parent_labels": [NAMES[0]] * len(row["parents"])} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in told))
    page = report_of_a_run(file.parent, make_encoder())
    assert "Map of the embeddings" in page and note not in page


def test_no_column_of_doubts_without_any(run: Callable[..., Path]) -> None:
    folder = run(events=[])
    assert "<th>found</th>" not in report_of_a_run(folder)


@pytest.mark.parametrize(
    ("figure", "said"), [(0.61, "0.610"), (9.99, "9.990"), (-11.59, "-11.6"), (5230.9, "5,231")]
)
def test_large_figures_have_fewer_places(figure: float, said: str) -> None:
    assert rounded(figure) == said


def test_what_other_commands_have_measured_is_shown(run: Callable[..., Path]) -> None:
    folder = run()
    interval = {"value": 0.61, "low": 0.5, "high": 0.7}
    figure = {"name": "self-BLEU", "generated": 0.25, "real": interval, "note": "how alike"}
    (folder / "quality.json").write_text(json.dumps({"title": "", "figures": [figure]}))
    rate = asdict(wilson(3, 10))
    found = Audit(
        10, 20, *[wilson(3, 10)] * 3, Interval(0.61, 0.5, 0.7), None, {"0.5": 1}, {}, None
    )
    content = asdict(found) | {"nearer_by_lam": {"0.5-0.6": rate}, "verdict": "All <is> well."}
    (folder / "audit.json").write_text(json.dumps(content))
    each = {"variance_ratio": 0.8, "frobenius": 0.3, "energy": 0.1, "p_value": 0.01}
    report = {"weights": "uniform", "before": {"news": each}, "after": {"news": each}}
    (folder / "structure.json").write_text(json.dumps({"title": "", "reports": [report]}))
    page = report_of_a_run(folder)
    for cell in ("0.250", "0.610 [0.500, 0.700]", "how alike", "30.0% [10.8%, 60.3%]", "0.80"):
        assert f"<td>{cell}</td>" in page
    assert "All &lt;is&gt; well." in page
    (folder / "audit.json").write_text("{}")
    with pytest.raises(ValueError, match=r"audit.json is damaged, or of another version"):
        report_of_a_run(folder)


def test_what_was_generated_cannot_break_the_page(run: Callable[..., Path]) -> None:
    page = report_of_a_run(run(text="<script>alert('x')</script> & more"))
    assert "&lt;script&gt;alert(" in page
    assert "<script" not in page
    assert "Map of the embeddings" not in page  # no encoder, no map


def test_the_same_run_gives_the_same_file(run: Callable[..., Path]) -> None:
    folder = run()
    assert report_of_a_run(folder) == report_of_a_run(folder)


def test_a_run_without_mixing_says_so(run: Callable[..., Path]) -> None:
    folder = run()
    (folder / "mixed.jsonl").unlink()
    (folder / "history.json").unlink()
    page = report_of_a_run(folder)
    assert "Nothing was generated in this run." in page
    assert "<svg" not in page


def test_without_matplotlib_the_page_says_that_plots_are_left_out(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = report_of_a_run(run(), make_encoder())
    assert "Plots are left out" in page and "mixup_hf[report]" in page
    assert "<svg" not in page and "<h3>Variety</h3>" in page


def test_what_is_no_run_is_refused(run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="output_dir` of mixup-hf finetune"):
        report_of_a_run(tmp_path)
    folder = run()
    (folder / "metrics.json").write_text('{"test_acc')
    with pytest.raises(ValueError, match="is damaged"):
        report_of_a_run(folder)
    folder = run(soft_label=3)
    with pytest.raises(ValueError, match="has no `soft_label`"):
        report_of_a_run(folder)


def test_an_experiment_has_tables_plots_and_words() -> None:
    metrics = dict.fromkeys(("macro_f1", "minority_recall", "ece", "loss", "brier"), 0.5)
    runs = {}
    for seed in range(3):
        for arm, accuracy in (("oversample", 0.5), ("eda", 0.5 + 0.05 * seed)):
            job = Job("trec", 5, seed, arm)
            kept = metrics | {"accuracy": accuracy, "seconds": 1.0, "mixed_rows": 4.0}
            runs[job] = Run(job, kept, [True, False])
    found = summarise(runs, "oversample")
    page = report_of_an_experiment(
        "An experiment", found, "oversample", together(runs, "oversample")
    )
    assert Page(page).fetched == []
    assert "All data sets" not in page  # there is one
    assert "trec, 5 rows per class" in page and "+0.050 [" in page
    assert "No arm is shown to differ from `oversample`" in page
    assert page.count("<svg") == 1


def test_the_command_writes_it(run: Callable[..., Path], tmp_path: Path) -> None:
    folder = run()
    result = CliRunner().invoke(cli.app, ["report", str(folder), "--encoder", "none"])
    assert result.exception is None
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    (folder / "runs.jsonl").touch()
    result = CliRunner().invoke(cli.app, ["report", str(folder)])
    assert "holds an experiment" in str(result.exception)


def test_variety_is_counted_on_as_many_words() -> None:
    few, many = ["a b a b"], ["c d e f", "c d e f", "g h"]
    ours, real = matched_variety(few, many)
    assert ours.words == real.words == 4
    assert (ours.distinct_1, real.distinct_1) == (0.5, 1.0)
    assert ours.distinct_2 == pytest.approx(2 / 3)
    assert variety(many).distinct_1 == pytest.approx(6 / 10)
    assert real.unique == pytest.approx(2 / 3)
    assert real.mean_words == pytest.approx(10 / 3)


def test_the_longest_copied_run_is_found() -> None:
    parents = ["the bank was on the market", "a film star"]
    assert copied_share("so The Bank was closed", parents) == pytest.approx(3 / 5)
    assert copied_share("nothing here", parents) == 0
    assert copied_share("a film star", parents) == 1
