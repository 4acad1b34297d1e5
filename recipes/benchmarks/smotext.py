"""SMOTExT's own set-up (arXiv 2505.13434): 20 Newsgroups, 1,000 real and 2,600 synthetic rows.

    python recipes/benchmarks/smotext.py --data data/newsgroups20 --output runs/smotext.jsonl

Each seed draws 1,000 training rows, as many of every class, and makes 2,600 by the preset
`smotext`. A logistic regression learns on a frozen encoder's embeddings: of the real rows, of both,
of the synthetic rows alone; and, to say what labels would be worth, of as many real rows as there
are synthetic ones. Seeds already in the output are not run again. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap
from sklearn.linear_model import LogisticRegression

from mixup_hf import InversedMixup, Inverter, MixupConfig

ARMS = ("real", "real + synthetic", "synthetic", "real, more rows")
PUBLISHED = {"real": "83.6", "real + synthetic": "83.9", "synthetic": "about 80"}


def main() -> None:
    """Run what is left, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="has train.jsonl and test.jsonl")
    parser.add_argument("--output", required=True, type=Path, help="a JSON line for each seed")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--real", type=int, default=1000)
    parser.add_argument("--synthetic", type=int, default=2600)
    parser.add_argument("--test_rows", type=int, default=2000, help="at most; of all seeds")
    options = parser.parse_args()
    sizes = {name: getattr(options, name) for name in ("real", "synthetic", "test_rows")}
    runs = [run for run in read(options.output) if sizes.items() <= run.items()]
    left = [seed for seed in options.seeds if seed not in {run["seed"] for run in runs}]
    if left:
        benchmark = Benchmark(options)
        for seed in left:
            runs.append(benchmark.run(seed))
            options.output.parent.mkdir(parents=True, exist_ok=True)
            with options.output.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(runs[-1]) + "\n")
    show(runs)


class Benchmark:
    """One data set, one encoder, one aligner; a run for each seed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.train, test = (read(options.data / f"{name}.jsonl") for name in ("train", "test"))
        if options.test_rows < len(test):
            test = random.Random(0).sample(test, options.test_rows)
        self.names = sorted({row["label"] for row in self.train})
        self.inverter = Inverter.from_pretrained()
        self.test_texts = [row["text"] for row in test]
        self.test = self.embedded(test)

    def run(self, seed: int) -> dict[str, Any]:
        """Accuracy of each arm."""
        options = self.options
        real, more = self.draw(options.real, seed), self.draw(options.synthetic, 1000 + seed)
        mixup = InversedMixup.from_pretrained(
            texts=[row["text"] for row in real],
            labels=[row["label"] for row in real],
            eval_texts=self.test_texts,
            config=MixupConfig(method="smotext", label_source="parents", seed=seed),  # as published
        )
        rows = mixup.generate(options.synthetic)
        given = self.embedded(real)
        made = self.embed([row.text for row in rows]), np.array([row.hard_label for row in rows])
        both = tuple(np.concatenate(pair) for pair in zip(given, made, strict=True))
        arms = dict(zip(ARMS, (given, both, made, self.embedded(more)), strict=True))
        return {
            "seed": seed,
            "real": options.real,
            "synthetic": options.synthetic,
            "test_rows": options.test_rows,
            "accuracy": {name: self.accuracy(*arm) for name, arm in arms.items()},
        }

    def draw(self, count: int, seed: int) -> list[dict[str, Any]]:
        """Training rows, as many of every class."""
        rng = random.Random(seed)
        each = count // len(self.names)
        return [
            row
            for name in self.names
            for row in rng.sample([row for row in self.train if row["label"] == name], each)
        ]

    def accuracy(self, inputs: np.ndarray, labels: np.ndarray) -> float:
        """Of a head trained on these, on the test rows."""
        head = LogisticRegression(C=10.0, max_iter=1000).fit(inputs, labels)
        return float(head.score(*self.test))

    def embedded(self, rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings (n, D) and class indices (n,), in the order of the sorted names."""
        labels = np.array([self.names.index(row["label"]) for row in rows])
        return self.embed([row["text"] for row in rows]), labels

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings (n, D)."""
        return self.inverter.encode(texts).numpy()


def difference(arm: Sequence[float], real: Sequence[float]) -> str:
    """Mean paired difference in points, with its 95 % bootstrap interval."""
    gaps = 100 * (np.array(arm) - np.array(real))
    found = bootstrap((gaps,), np.mean, method="percentile", rng=np.random.default_rng(0))
    low, high = found.confidence_interval
    return f"{gaps.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def read(file: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; none where there is no file."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def show(runs: Sequence[dict[str, Any]]) -> None:
    """The table: means, deviations, paired differences to the real rows alone."""
    real = [run["accuracy"]["real"] for run in runs]
    print(f"{len(runs)} seeds, {runs[0]['test_rows']} test rows\n")
    print("| head trained on | accuracy | against real | published |\n|---|---|---|---|")
    for arm in ARMS:
        found = [run["accuracy"][arm] for run in runs]
        spread = f" ± {100 * statistics.stdev(found):.1f}" if len(found) > 1 else ""
        against = difference(found, real) if arm != "real" and len(found) > 1 else ""
        mean = f"{100 * statistics.mean(found):.1f}{spread}"
        print(f"| {arm} | {mean} | {against} | {PUBLISHED.get(arm, '')} |")


if __name__ == "__main__":
    main()
