"""What mixing methods and intrusion policies are worth: paired runs on labelled sets.

    python recipes/benchmarks/methods.py --data FOLDER --output_dir runs/methods

`--data` holds a folder for each set, with train.jsonl and test.jsonl ({"text", "label"} a line). An
arm's run shares its shots, its head and its number of steps with the runs of all other arms of the
same seed. Runs are appended to runs.jsonl; those already there are not run again: a benchmark that
was stopped goes on, and processes can share a folder, each with `--seeds` of its own. Prints a
Markdown table of each set, with differences to `oversample` (bootstrap, 95 %).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap

from mixup_hf import FinetuneConfig, Inverter, finetune, load_config

ARMS: dict[str, dict[str, Any]] = {
    "none": {"enabled": False},
    "oversample": {"enabled": False},
    "inversed-mixup, keep": {"pairing": "random", "intrusion": "keep"},
    "inversed-mixup, drop": {"pairing": "random", "intrusion": "drop"},
    "inversed-mixup, relabel": {"pairing": "random", "intrusion": "relabel"},
    "inversed-mixup, blend": {"pairing": "random", "intrusion": "blend"},
    "inversed-mixup, same class": {},
    "smotext": {"method": "smotext"},
    "structure-preserving": {"method": "structure-preserving"},
    "inversed-mixup, same class, task": {"source": "task"},
}
BATCH = 8
METRICS = ("test_accuracy", "test_macro_f1", "test_ece", "seconds")


def main() -> None:
    """Run what is left, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--sets", nargs="*", default=["bbc_headlines", "trec", "sst2"])
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--test_rows", type=int, default=629, help="at most")
    parser.add_argument("--rows", type=int, default=160, help="mixed sentences of a run")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    results = options.output_dir / "runs.jsonl"
    runs = read_runs(results)
    done = {(run["set"], run["arm"], run["seed"]) for run in runs}
    inverter = Inverter.from_pretrained()
    for seed in options.seeds:  # seed by seed: a run that is stopped leaves whole seeds
        for name in options.sets:
            for arm in options.arms:
                if (name, arm, seed) not in done:
                    run = {"set": name, "arm": arm, "seed": seed}
                    run |= measure(options, name, arm, seed, inverter)
                    runs.append(run)
                    with results.open("a") as stream:
                        stream.write(json.dumps(run) + "\n")
    for name in options.sets:
        print(f"\n{name}, {options.shots} shots\n\n{table(runs, name)}")


def read_runs(results: Path) -> list[dict[str, Any]]:
    """The runs so far; a last line that was cut is left out."""
    lines = results.read_text().splitlines(keepends=True) if results.is_file() else []
    if lines and not lines[-1].endswith("\n"):
        results.write_text("".join(lines[:-1]))
        lines.pop()
    return [json.loads(line) for line in lines]


def measure(
    options: argparse.Namespace, name: str, arm: str, seed: int, inverter: Inverter
) -> dict[str, Any]:
    """Fine-tune once."""
    folder = options.output_dir / name / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    shots = draw(options.data / name / "train.jsonl", options.shots, seed)
    # Twice the rows in batches of twice the size: the steps, and the rows of a step, of the others.
    copies = 2 if arm == "oversample" else 1
    train = folder / "train.jsonl"
    train.write_text("".join(shots * copies))
    test = folder / "test.jsonl"
    lines = read_lines(options.data / name / "test.jsonl")
    random.Random(0).shuffle(lines)
    test.write_text("".join(lines[: options.test_rows]))
    content = {
        "data": {"train_file": str(train), "test_file": str(test)},
        "output_dir": str(folder),
        "seed": seed,
        "training": {
            "num_train_epochs": options.epochs,
            "per_device_train_batch_size": BATCH * copies,
            "per_device_eval_batch_size": 64,
            "learning_rate": 1e-4,
        },
        "mixup": {
            "method": "inversed-mixup",
            "label_source": "parents",
            "rows_per_refill": options.rows,
            "refill_every": 0,
            "reuse": True,
        }
        | ARMS[arm],
    }
    config = folder / "config.yaml"
    config.write_text(json.dumps(content))  # JSON is YAML
    found = finetune(load_config(FinetuneConfig, config), inverter)
    kept = (*METRICS, "test_brier", "steps", "mixed_rows", "doubtful", "decode_seconds")
    return {key: found[key] for key in kept if key in found}


def read_lines(file: Path) -> list[str]:
    """The lines of a file, their ends kept."""
    return [line + "\n" for line in file.read_text(encoding="utf-8").strip("\n").split("\n")]


def draw(file: Path, shots: int, seed: int) -> list[str]:
    """So many lines of each class, in mixed order."""
    lines = read_lines(file)
    generator = random.Random(seed)
    generator.shuffle(lines)
    by_class: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        rows = by_class[json.loads(line)["label"]]
        if len(rows) < shots:
            rows.append(line)
    chosen = [line for rows in by_class.values() for line in rows]
    generator.shuffle(chosen)
    return chosen


def table(runs: list[dict[str, Any]], name: str) -> str:
    """The arms of one set as Markdown."""
    by_arm: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for run in runs:
        if run["set"] == name:
            by_arm[run["arm"]][run["seed"]] = run
    lines = [
        "| arm | seeds | accuracy | against oversample | macro-F1 | ECE | doubtful | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = by_arm.get("oversample", {})
    for arm, by_seed in by_arm.items():
        shown = [spread(run[key] for run in by_seed.values()) for key in METRICS]
        pairs = [
            run["test_accuracy"] - base[seed]["test_accuracy"]
            for seed, run in by_seed.items()
            if seed in base and arm != "oversample"
        ]
        lines.append(
            f"| {arm} | {len(by_seed)} | {shown[0]} | {difference(pairs)} | {shown[1]} | "
            f"{shown[2]} | {doubtful(by_seed.values())} | {shown[3]} |"
        )
    return "\n".join(lines)


def spread(values: Iterable[float]) -> str:
    """Mean and standard deviation."""
    found = list(values)
    deviation = statistics.stdev(found) if len(found) > 1 else 0.0
    digits = 0 if max(found) > 2 else 3
    return f"{statistics.mean(found):.{digits}f} ± {deviation:.{digits}f}"


def difference(pairs: list[float]) -> str:
    """Mean of paired differences with its bootstrap interval."""
    if len(pairs) < 2 or len(set(pairs)) == 1:
        return ""
    interval = bootstrap(
        (pairs,), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return f"{np.mean(pairs):+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def doubtful(runs: Iterable[dict[str, Any]]) -> str:
    """Share of sentences that judges doubted at first, with Wilson's interval."""
    found = list(runs)
    count, of = (sum(run[key] for run in found) for key in ("doubtful", "mixed_rows"))
    if not of:
        return ""
    interval = binomtest(count, of).proportion_ci(method="wilson")
    return f"{count / of:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


if __name__ == "__main__":
    main()
