"""`mixup-hf augment`: formats, columns, the summary, interruptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tiny import make_rows
from typer.testing import CliRunner

from mixup_hf import errors
from mixup_hf.cli import main as cli
from mixup_hf.data.row_formats import read_records
from mixup_hf.training.inversed import InversedMixup

TEXTS, LABELS = make_rows(24)
NAMES = ("news", "film", "sport ")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = [
        json.dumps({"text": text, "label": NAMES[label]})
        for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "train.jsonl"


@pytest.fixture
def augment(data: Path, saved_aligner: Callable[..., Path]) -> Callable[..., Any]:
    aligner = saved_aligner()

    def run(output: Path, *options: object, num_samples: int = 6, source: object = data) -> Any:
        words = ["augment", "--data", source, "--num-samples", num_samples, "--output", output]
        words += ["--aligner", aligner, "--max-new-tokens", 5, *options]
        return CliRunner().invoke(cli.app, [str(word) for word in words])

    return run


def succeed(result: Any) -> str:
    if result.exception is not None:
        raise result.exception
    return str(result.output)


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_formats_and_columns(augment: Callable[..., Any], tmp_path: Path, format: str) -> None:
    output = tmp_path / f"rows.{format}"
    succeed(augment(output, "--columns", "text,label"))
    rows = [record for _, record in read_records(output)]
    assert [list(row) for row in rows] == [["text", "label"]] * 6
    assert {row["label"] for row in rows} <= set(NAMES)
    succeed(augment(tmp_path / "other", "--format", format, "--no-provenance"))
    (tmp_path / "other").rename(tmp_path / f"other.{format}")
    rows = [record for _, record in read_records(tmp_path / f"other.{format}")]
    assert [list(row) for row in rows] == [["text", "label", "soft_label"]] * 6
    assert not (tmp_path / "other.run.json").exists()


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_rows_of_every_format_are_regenerated(
    augment: Callable[..., Any], tmp_path: Path, format: str
) -> None:
    output = tmp_path / f"rows.{format}"
    succeed(augment(output, "--parents"))
    rows = [record for _, record in read_records(output)]
    printed = CliRunner().invoke(cli.app, ["augment", "--from-row", f"{output}:4"])
    assert json.dumps(rows[3], ensure_ascii=False) in succeed(printed)
    assert rows[3]["parent_texts"] == [TEXTS[at] for at in rows[3]["parents"]]


def test_the_summary_has_classes_and_copies(augment: Callable[..., Any], tmp_path: Path) -> None:
    shown = succeed(augment(tmp_path / "rows.jsonl"))
    assert "'sport '" in shown  # quoted: the blank shows
    for word in ("doubtful", "redrawn", "copied from a training row", "distinct", "words per text"):
        assert word in shown
    assert "round trip of 24 training texts" in shown
    assert "labelled by a committee (encoder, llm, setfit)" in shown
    shown = succeed(augment(tmp_path / "other.jsonl", "--label-source", "parents"))
    assert "labelled by the parents, by their weights" in shown


def test_of_several_processes_the_main_one_writes(
    augment: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[bool] = []
    monkeypatch.setattr("mixup_hf.runtime.join_processes", lambda: joined.append(True))
    monkeypatch.setattr("mixup_hf.runtime.is_main_process", lambda: False)
    shown = succeed(augment(tmp_path / "rows.jsonl"))
    assert joined and "written" not in shown
    assert not list(tmp_path.glob("rows*"))


def test_evaluation_texts_are_kept_out(augment: Callable[..., Any], tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    succeed(augment(first, "--temperature", 0, "--pairing", "random"))
    leaked = next(iter(read_records(first)))[1]["text"]
    held = tmp_path / "eval.csv"
    held.write_text(f"text,label\n{leaked},news\n")
    succeed(augment(second, "--temperature", 0, "--pairing", "random", "--eval-data", held))
    assert leaked not in [record["text"] for _, record in read_records(second)]
    again = CliRunner().invoke(cli.app, ["augment", "--from-row", f"{second}:1"])
    assert second.read_text().splitlines()[0] in succeed(again)
    held.write_text("text,label\nanother text,news\n")
    changed = CliRunner().invoke(cli.app, ["augment", "--from-row", f"{second}:1"])
    assert "eval.csv is not what it was" in str(changed.exception)


def test_a_data_set_on_disk_with_pairs(augment: Callable[..., Any], tmp_path: Path) -> None:
    columns = {"text": TEXTS, "second": TEXTS[::-1], "label": LABELS}
    Dataset.from_dict(columns).save_to_disk(tmp_path / "set")
    output = tmp_path / "rows.jsonl"
    succeed(augment(output, "--text-pair-column", "second", source=tmp_path / "set"))
    rows = [record for _, record in read_records(output)]
    assert all(row["text_pair"] and isinstance(row["label"], int) for row in rows)


def test_an_interruption_says_where_the_rows_are(
    augment: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = InversedMixup.stream

    def interrupted(self: InversedMixup, n: int, **settings: Any) -> Any:
        yield next(stream(self, n, **settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(InversedMixup, "stream", interrupted)
    result = augment(tmp_path / "rows.csv", num_samples=20)
    assert result.exit_code == 130
    assert "8 of 20 rows were generated" in result.output
    assert "rows.partial.csv" in result.output
    assert len(list(read_records(tmp_path / "rows.partial.csv"))) == 8


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--format", "xml"), "`format` must be one of"),
        (("--columns", "text,labels"), "`columns` must be one of"),
        (("--weights", "gamma:1"), "gamma"),
    ],
)
def test_bad_options_are_refused_before_anything_is_loaded(
    augment: Callable[..., Any],
    tmp_path: Path,
    options: tuple[str, ...],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mixup_hf.inverter.model.Inverter.from_pretrained", None)
    result = augment(tmp_path / "rows.jsonl", *options)
    assert isinstance(result.exception, ValueError)
    assert named in str(result.exception)


def test_a_committee_labels_mixes_and_unlabelled_texts(
    augment: Callable[..., Any], tmp_path: Path
) -> None:
    output, more = tmp_path / "rows.csv", tmp_path / "more.txt"
    more.write_text("new big price\nold team\nfilm star song\n")
    options = ["--unlabeled-file", more, "--committee", "[encoder,knn]"]
    options += ["--label-source", "committee", "--unlabeled-parents", "0.4"]
    succeed(augment(output, *options))
    rows = [record for _, record in read_records(output)]
    taken = [row["text"] for row in rows if row["method"] == "unlabeled"]
    assert sorted(taken) == sorted(more.read_text().splitlines())
    assert all(set(row["votes"]) == {"encoder", "knn"} for row in rows)
    assert any(row["unlabeled_parents"] for row in rows)
    again = CliRunner().invoke(cli.app, ["augment", "--from-row", f"{output}:1"])
    assert json.dumps(rows[0], ensure_ascii=False) in succeed(again)
    with pytest.raises(errors.InvalidInput, match="there is nothing to generate"):
        succeed(CliRunner().invoke(cli.app, ["augment", "--from-row", f"{output}:2"]))
    more.write_text("new big price\nold song\n")
    with pytest.raises(errors.InvalidInput, match="are not what they were"):
        succeed(CliRunner().invoke(cli.app, ["augment", "--from-row", f"{output}:1"]))
    with pytest.raises(errors.InvalidInput, match="`--unlabeled-file` needs `--label-source`"):
        succeed(augment(output, "--unlabeled-file", more, "--label-source", "parents"))
    with pytest.raises(errors.InvalidInput, match="`--unlabeled-parents` = 0.4 needs unlab"):
        succeed(augment(output, *options[2:]))


def test_the_training_rows_are_not_replaced(augment: Callable[..., Any], data: Path) -> None:
    before = data.read_bytes()
    result = augment(data.parent / "." / data.name)
    assert isinstance(result.exception, errors.InvalidInput)
    assert "another file than --data" in str(result.exception)
    assert data.read_bytes() == before
