"""The commands, end to end, on tiny models and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny import make_rows, word_tokenizer
from typer.testing import CliRunner

from mixup_hf.align.data import read_with_origins
from mixup_hf.cli import main as cli
from mixup_hf.cli.commands.finetune import print_mixes
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.inverter.model import Inverter
from mixup_hf.mixing.interpolation import linear

NAMES = ("news", "film", "sport")


@pytest.fixture
def run() -> Callable[..., str]:
    """Run a command that must succeed; returns what it printed."""

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(cli.app, [str(word) for word in arguments])
        if result.exception is not None:
            raise result.exception
        return result.output

    return call


@pytest.fixture
def data(tmp_path: Path) -> Path:
    texts, labels = make_rows(24)
    return write_jsonl(tmp_path / "train.jsonl", texts, [NAMES[label] for label in labels])


def write_jsonl(path: Path, texts: Sequence[str], labels: Sequence[Any]) -> Path:
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def finetune_config(tmp_path: Path, data: Path, aligner: Path) -> Path:
    model = tmp_path / "encoder"  # written by saved_aligner, with its tokenizer
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
data: {{train_file: {data}, test_file: {data}, shots: 4, max_length: 32}}
model: {model}
output_dir: {tmp_path / "out"}
training: {{max_steps: 4, per_device_train_batch_size: 4, use_cpu: true, disable_tqdm: true}}
mixup: {{aligner: {aligner}, max_new_tokens: 6}}
"""
    )
    return config


def test_augment_writes_exactly_the_rows_asked_for(
    run: Callable[..., str], data: Path, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    output, aligner = tmp_path / "mixed.jsonl", saved_aligner()
    options = ("--data", data, "--num-samples", 7, "--aligner", aligner, "--pairing", "random")
    run("augment", *options, "--seed", 3, "--output", output)
    rows = read_jsonl(output)
    assert len(rows) == 7
    for row in rows:
        assert {"text", "label", "lam", "parents", "seed"} <= set(row)
        assert row["text"].strip()
        assert set(row["soft_label"]) == set(NAMES)
        assert sum(row["soft_label"].values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(row["soft_label"], key=row["soft_label"].__getitem__)
        assert not {"run", "parent_texts"} & set(row)
        assert 0 <= row["lam"] <= 1
        assert row["seed"] == 3
        assert all(0 <= parent < 24 for parent in row["parents"])
        assert row["method"] == "smotext"
        assert row["weights"] == "uniform"
        assert row["interpolation"] == "linear"
        assert row["engine"].startswith("fast:")
        assert {"events", "judges", "mitigation", "aligner_fingerprint"} <= set(row)
    settings = json.loads((tmp_path / "mixed.jsonl.run.json").read_text())["settings"]
    assert settings["aligner"] == str(aligner)
    assert settings["weights"] == "uniform"  # what the method stood for
    first = output.read_text()
    run("augment", *options, "--seed", 3, "--output", output)
    assert output.read_text() == first
    run("augment", *options, "--seed", 4, "--output", output)
    assert output.read_text() != first


def test_augment_makes_a_row_again_byte_for_byte(
    run: Callable[..., str],
    data: Path,
    tmp_path: Path,
    saved_aligner: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "mixed.jsonl"
    run(
        *("augment", "--data", data, "--num-samples", 7, "--aligner", saved_aligner()),
        *("--method", "smotext", "--temperature", 1.5, "--seed", 3, "--output", output),
    )
    lines = output.read_text().splitlines()
    for number in (1, 5, 7):
        capsys.readouterr()
        printed = run("augment", "--from-row", f"{output}:{number}")
        assert lines[number - 1] in printed
    moved = data.rename(tmp_path / "moved.jsonl")
    assert lines[0] in run("augment", "--from-row", f"{output}:1", "--data", moved)
    moved.write_text("".join(reversed(moved.read_text().splitlines(keepends=True))))
    with pytest.raises(ValueError, match="is not what it was"):
        run("augment", "--from-row", f"{output}:1", "--data", moved)


def test_preview_shows_both_ends_and_the_steps_between(
    run: Callable[..., str], saved_aligner: Callable[..., Path]
) -> None:
    output = run(
        *("preview", "--a", "red market", "--b", "film star"),
        *("--steps", 3, "--aligner", saved_aligner()),
        *("--corrections", 1, "--close-enough", 0.99),
    )
    for shown in ("red market", "film star", "1.00", "0.50", "0.00"):
        assert shown in output


def test_preview_takes_hints_and_lengths_from_both_texts(
    run: Callable[..., str], saved_aligner: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def interpolate(self: Inverter, *texts: Any, **settings: Any) -> list[str]:
        asked.append((texts[3], settings))
        return ["film"] * len(texts[2])

    monkeypatch.setattr(Inverter, "interpolate", interpolate)
    words = ("preview", "--a", "red red red red", "--b", "film star", "--steps", 3)
    words = (*words, "--aligner", saved_aligner())
    run(*words, "--hints", "parents")
    run(*words, "--length", "free")
    assert [hints for hints, _ in asked] == ["parents", "embedding"]
    assert [settings["lengths"] for _, settings in asked] == [[4, 3, 2], None]


def test_finetune_writes_metrics_and_every_sentence_used(
    run: Callable[..., str], data: Path, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    config = finetune_config(tmp_path, data, saved_aligner())
    printed = run("finetune", config, "--seed", 1)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"test_accuracy", "test_macro_f1", "train_rows", "mixed_rows", "seconds"} <= set(metrics)
    assert 0 <= metrics["test_minority_recall"] <= metrics["test_accuracy"] <= 1
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert history[-1]["step"] == 4
    assert metrics["train_rows"] == 12
    assert metrics["seed"] == 1
    assert metrics["steps"] == 4
    rows = read_jsonl(tmp_path / "out" / "mixed.jsonl")
    assert len(rows) == metrics["mixed_rows"] > 0
    assert sum(row["times_used"] for row in rows) == metrics["mixed_draws"] == 2 * 4
    labels = {row["text"]: row["label"] for row in read_jsonl(data)}
    for row in rows:
        assert row["parent_labels"] == [labels[text] for text in row["parent_texts"]]
    assert "test_accuracy" in printed
    assert rows[0]["parent_texts"][0].split()[0] in printed


def test_classes_of_next_to_no_share_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = {"text": "a new song", "lam": 0.5, "parent_texts": ["a song", "new"]}
    row["soft_label"] = {"music": 0.96, "film": 0.02, "sport": 0.02}
    print_mixes(Console(), [row])
    shown = capsys.readouterr().out
    assert "music 0.96" in shown
    assert "film" not in shown


def test_finetune_without_mixup_uses_no_aligner(
    run: Callable[..., str], data: Path, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    config = finetune_config(tmp_path, data, saved_aligner())
    run("finetune", config, "--mixup.enabled", "false", "--mixup.aligner", "nowhere")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["mixed_rows"] == 0
    assert not (tmp_path / "out" / "mixed.jsonl").exists()


def test_finetune_on_augmented_rows_needs_no_aligner(
    run: Callable[..., str], data: Path, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    aligner, rows = saved_aligner(), tmp_path / "rows.jsonl"
    run("augment", "--data", data, "--num-samples", 6, "--output", rows, "--aligner", aligner)
    config = finetune_config(tmp_path, data, aligner)
    keys = ("--mixup.rows_file", rows, "--mixup.aligner", "nowhere", "--mixup.refill_every", 0)
    # Shots would leave parents out, and these rows are evaluated on: see `data`.
    run("finetune", config, "--data.shots", "null", "--mixup.leaks", "off", *keys)
    used = read_jsonl(tmp_path / "out" / "mixed.jsonl")
    assert {row["text"] for row in used} == {row["text"] for row in read_jsonl(rows)}


def test_finetune_needs_no_config_file(
    run: Callable[..., str], tmp_path: Path, data: Path, saved_aligner: Callable[..., Path]
) -> None:
    saved_aligner()
    run(
        *("finetune", "--data.train_file", data, "--data.test_file", data),
        *("--model", tmp_path / "encoder", "--output_dir", tmp_path / "out"),
        *("--mixup.enabled", "false", "--training.max_steps", 1, "--training.use_cpu", "true"),
    )
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_finetune_twice_gives_the_same_metrics(
    run: Callable[..., str], data: Path, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    config = finetune_config(tmp_path, data, saved_aligner())
    results = []
    for _ in range(2):
        run("finetune", config)
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        results.append((metrics["test_loss"], (tmp_path / "out" / "mixed.jsonl").read_text()))
    assert results[0] == results[1]


def test_align_evaluate_prints_and_writes_the_fidelity(
    run: Callable[..., str], tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    texts, _ = make_rows(24)
    (tmp_path / "data.txt").write_text("\n".join([*texts, "short"]))
    (tmp_path / "origins.txt").write_text("\n".join(["news"] * 10 + ["film"] * 15))
    shown = run(
        *("align", "--evaluate", saved_aligner(lora=True), "--data", tmp_path / "data.txt"),
        *("--origins", tmp_path / "origins.txt", "--min_words", 3, "--num_pairs", 3),
        *("--max_sentences", 30, "--output_dir", tmp_path / "out"),
        *("--corrections", 2, "--close-enough", 0.99),
    )
    shown = " ".join(shown.split())  # titles break where the table is narrow
    for expected in ("lambda slope", "greedy, corrections: 2, close enough: 0.99"):
        assert expected in shown
    report = json.loads((tmp_path / "out" / "fidelity.json").read_text())
    assert report["sentences"] == 24  # the short one was left out, and its origin with it
    assert {name: each["count"] for name, each in report["by_origin"].items()} == {
        "news": 10,
        "film": 14,
    }
    assert (tmp_path / "out" / "fidelity.png").is_file()


def test_align_evaluate_refuses_origins_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("the red market\nthe old film\n")
    (tmp_path / "origins.txt").write_text("news\n")
    with pytest.raises(ValueError, match="must have one line for each"):
        read_with_origins(
            str(tmp_path / "data.txt"),
            str(tmp_path / "origins.txt"),
            text_column="text",
            min_words=1,
            max_words=9,
            limit=9,
        )


def test_keys_lists_every_key_with_its_help(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    output = run("finetune", "--keys")
    assert "--mixup.mix-ratio" in output.replace("\n", "")
    assert "data.shots" in output


def test_env_names_versions_and_the_aligner(run: Callable[..., str]) -> None:
    output = run("env")
    for shown in ("transformers", "bitsandbytes", "cache", "all-minilm-l6-v2"):
        assert shown in output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("finetune", "{config}", "--mixup.mix_ration", "0.3"), "mixup.mix_ration"),
        (("finetune", "{config}", "--mixup.mix_ratio", "1.5"), "mix_ratio"),
        (("finetune", "{config}", "--mixup.weights", "gamma:1"), "gamma"),
        (("finetune", "{config}", "--data.text_column", "body"), "body"),
        (("finetune", "{config}", "--data.shots", "999"), "data.shots"),
        (("finetune", "{config}", "--training.seed", "1"), "seed"),
        (("finetune", "missing.yaml"), "missing.yaml"),
        (("augment", "--data", "{data}", "--num-samples", "0", "--output", "x"), "num-samples"),
        (("augment", "--num-samples", "2", "--output", "x"), "--data is missing"),
        (("augment", "--from-row", "rows.jsonl"), "be FILE:LINE"),
        (("augment", "--from-row", "rows.jsonl:0"), "be FILE:LINE"),
        (("augment", "--from-row", "rows.jsonl:1"), "no file 'rows.jsonl'"),
        (("augment", "--from-row", "{data}:1"), "no record of how it was generated"),
        (("augment", "--from-row", "{data}:999"), "name one of"),
        (("augment", "--data", "no.csv", "--num-samples", "2", "--output", "x"), "no.csv"),
        (("preview", "--a", " ", "--b", "film"), "--a"),
        (("preview", "--a", "red", "--b", "film", "--steps", "1"), "--steps"),
    ],
)
def test_bad_input_is_one_clear_message(
    arguments: tuple[str, ...],
    named: str,
    data: Path,
    tmp_path: Path,
    saved_aligner: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = finetune_config(tmp_path, data, saved_aligner())
    words = [word.format(config=config, data=data) for word in arguments]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mixup-hf", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    said = capfd.readouterr().err
    assert named in said
    assert "Traceback" not in said


def test_a_fault_of_the_package_itself_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def multiply(**_: object) -> None:  # torch raises in C++, so the last frame is this package's
        linear(torch.zeros(2, 3), torch.zeros(4, 5), torch.zeros(2))

    monkeypatch.setattr("sys.argv", ["mixup-hf"])
    monkeypatch.setattr(cli, "app", multiply)
    with pytest.raises(RuntimeError, match="size"):
        cli.main()


def test_debug_shows_the_traceback_of_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        DecodeSettings(top_k=0)

    monkeypatch.setattr(cli, "app", refuse)
    monkeypatch.setattr("sys.argv", ["mixup-hf"])
    with pytest.raises(SystemExit):
        cli.main()
    monkeypatch.setattr("sys.argv", ["mixup-hf", "--debug"])
    with pytest.raises(ValueError, match="top_k"):
        cli.main()


def test_the_tiny_tokenizer_reads_the_test_words() -> None:
    texts, _ = make_rows(24)
    ids = word_tokenizer(classifier=True)(texts)["input_ids"]
    assert all(1 not in row for row in ids)  # no unknown token: the data above carries meaning
