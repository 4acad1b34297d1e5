"""Nasty settings, options and files through the commands."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import nasty
from tiny_inverter import aligner, good_rows
from trials import Fault, Trial, outcome

from mixup_hf import MixupConfig, load_config


def _keys(kind: Any) -> list[str]:
    from mixup_hf.config import describe

    return [key.name for key in describe(kind) if "[" not in key.name and "NAME" not in key.name]


def configs(rng: random.Random, folder: Path) -> str:
    """YAML files and options with settings they must not have."""
    from mixup_hf.config import AlignConfig, FinetuneConfig
    from mixup_hf.evaluation.experiment.config import ExperimentConfig

    kind = rng.choice([MixupConfig, AlignConfig, FinetuneConfig, ExperimentConfig])
    keys, words = _keys(kind), []
    for _ in range(rng.randint(0, 3)):
        key = rng.choice([*keys, "nothing", "a.b.c", "", "-", "mixup.", ".x", "stages.0.name"])
        word = str(nasty.value(rng)) if rng.random() < 0.7 else nasty.text(rng, 1.0)
        words += [f"--{key}={word}"] if rng.random() < 0.5 else [f"--{key}", word]
    file = None
    if rng.random() < 0.7:
        file = folder / "config.yaml"
        lines = [f"{rng.choice(keys).split('.')[0]}: {nasty.value(rng)!r}" for _ in range(3)]
        texts = ["\n".join(lines), "!!python/object/apply:os.system ['id']", "a: &a [*a]", "- 1"]
        texts += ["[" * 5_000, "a: " + "{b: " * 2_000, "\x00", "? ? ? :", "a: b: c", "%YAML 9.9"]
        texts += ["a: &x {b: 1}\n<<: [*x, *x]", "? {a: 1}\n: 2", "1: 2", "null: 1", "2001-01-01: 1"]
        bomb = ["x: &x0 [1, 1]"] + [f"y{at}: &x{at + 1} [*x{at}, *x{at}]" for at in range(40)]
        texts += ["\n".join(bomb), "\n".join(bomb).replace("y39", rng.choice(keys))]
        file.write_bytes(rng.choice(texts).encode("utf-8", "replace"))
    return outcome(lambda: load_config(kind, file, words))[0]


def commands(rng: random.Random, folder: Path) -> str:
    """Every command, with files and options drawn at random."""
    made = nasty.table_file(rng, folder, rng.choice([0.0, 0.1, 0.3]))
    broken = nasty.broken_file(rng, folder, (".csv", ".jsonl", ".txt", ".json", ".parquet"))
    data = str(broken if made is None or rng.random() < 0.3 else made[0])
    rows = folder / "rows.jsonl"
    texts, records = good_rows()
    rows.write_text("".join(json.dumps(each) + "\n" for each in records))
    held = str(rng.choice([rows, broken, data]))
    fast = ["--aligner", aligner(), "--max-new-tokens", "3", "--reuse", "false"]
    out = str(folder / rng.choice(["out.jsonl", "out.csv", "out.parquet", "out.xyz", "no/out.csv"]))
    odd = nasty.text(rng, 1.0)
    train = [
        "finetune",
        "--data.train-file",
        data,
        "--data.test-file",
        data,
        "--mixup.enabled",
        "0",
    ]
    choices: list[list[str]] = [
        ["augment", "--data", data, "--num-samples", "3", "--output", out, *fast],
        ["augment", "--data", data, "--num-samples", odd, "--output", out, *fast],
        ["augment", "--from-row", f"{held}:{rng.choice(['1', '0', '-1', '999', odd])}"],
        ["augment", "--data", data, "--num-samples", "2", "--output", out, "--columns", odd, *fast],
        ["audit", "--data", data, "--rows", held, "--holdout", data, "--aligner", aligner()],
        ["report", str(folder), "--encoder", "none"],
        ["report", odd, "--encoder", "none"],
        ["compare", held],
        ["compare", held, "--arm", odd],
        ["preview", "--a", odd, "--b", "bank profit", "--aligner", aligner()],
        [*train, "--output-dir", str(folder / "run"), "--model", odd],
        ["align", "--data", data, "--output-dir", str(folder / "align"), "--encoder", odd],
        ["evaluate", str(broken)],
        ["env"],
        [odd],
        [rng.choice(["augment", "audit", "align", "push", "export"]), f"--{odd}", odd],
        [rng.choice(["finetune", "align", "augment", "evaluate"]), "--keys"],
        ["push-dataset", held, odd, "--license", odd],
        ["export", odd, "--aligner", odd],
    ]
    words = [word.replace("\x00", "0") for word in rng.choice(choices)]
    return _invoke(words)


def _invoke(words: list[str]) -> str:
    """Run a command in this process: "accepted" or "refused"."""
    from typer.testing import CliRunner

    from mixup_hf.cli import main as cli

    result: Any = None

    def run() -> None:
        nonlocal result
        result = CliRunner().invoke(cli.app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception

    end, _ = outcome(run)
    if end == "accepted" and result.exit_code not in (0, 2):
        raise Fault(f"exit code {result.exit_code}: {words}")
    return "refused" if end == "accepted" and result.exit_code else end


def reports(rng: random.Random, folder: Path) -> str:
    """A run's folder with damaged files, rendered as a page: nothing of a text becomes markup."""
    texts, records = good_rows()
    script = "<script>alert(1)</script>"
    for record in records:
        if rng.random() < 0.5:
            record["text"] = rng.choice([script, nasty.text(rng, 1.0).replace("\x1e", "")])
    lines = [json.dumps(each) for each in records]
    if rng.random() < 0.3:
        lines[rng.randrange(6)] = rng.choice(["{}", "1", "{", '{"text": 5}', "[" * 3000])
    (folder / "mixed.jsonl").write_text("\n".join(lines) + "\n")
    metrics: Any = {"test_accuracy": 0.5, "test_rows": 8, "seconds": 1.0}
    if rng.random() < 0.5:
        bad: list[Any] = [[], None, "x", {**metrics, "test_loss": script}]
        bad += [{**metrics, script: 1}, {**metrics, "test_accuracy": None}]
        metrics = rng.choice(bad)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    if rng.random() < 0.3:
        (folder / rng.choice(["metrics.json", "audit.json"])).write_bytes(b"{\xff")
    end = _invoke(["report", str(folder), "--encoder", "none"])
    page = folder / "report.html"
    if page.exists() and script in page.read_text():
        raise Fault("a text has become markup")
    return end


TRIALS: tuple[Trial, ...] = (configs, commands, reports)
