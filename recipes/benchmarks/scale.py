"""What a training set of a million rows costs, beside a small one: time for each row, and memory.

    python recipes/benchmarks/scale.py --rows 1000 10000 100000 1000000 --generated 1000

Reads a jsonl file of `rows` labelled texts, embeds them, pairs every row once, fits judges and a
committee, makes `generated` rows that pass both, and draws them all from the pool. Everything is
the package's own but the two models: the encoder adds up vectors of words and the decoder picks
words, so that what is measured is the rest. Embeddings have 384 numbers, as MiniLM's.

Every size runs in a process of its own. Times are CPU seconds of all threads, so that other work on
the machine does not count. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import torch
from torch import Tensor

from mixup_hf import PairPlan, parse_weights
from mixup_hf.data.tables import read_table
from mixup_hf.data.targets import read_targets
from mixup_hf.generation.generator import Producer
from mixup_hf.generation.labelling import Labelling
from mixup_hf.judging import build_gate
from mixup_hf.training.committee import build_committee
from mixup_hf.training.pool import MixupPool

WIDTH, WORDS, CLASSES, CHUNK, BATCH = 384, 4096, 20, 256, 64
PER_ROW, PER_GENERATED, ONCE = ("read", "embed", "pair"), ("generate", "pool"), ("fit",)


def main() -> None:
    """Measure each size, or, as the child that does it, one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--generated", type=int, default=1000)
    parser.add_argument("--pairing", default="same_class", choices=["same_class", "smote", "local"])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.one, options.generated, options.pairing)))
        return
    stages = (*PER_ROW, *PER_GENERATED)
    print(f"| rows | {' | '.join(f'{each}, µs a row' for each in stages)} | fit, s | peak, GiB |")
    print("|---" * (len(stages) + 3) + "|")
    for rows in options.rows:
        command = [sys.executable, __file__, "--one", str(rows), "--pairing", options.pairing]
        command += ["--generated", str(options.generated)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        cells = [f"{1e6 * found[name] / rows:.1f}" for name in PER_ROW]
        cells += [f"{1e6 * found[name] / options.generated:.0f}" for name in PER_GENERATED]
        cells += [f"{found['fit']:.1f}", f"{found['gib']:.2f}"]
        print(f"| {rows:,} | {' | '.join(cells)} |", flush=True)


class WordEncoder:
    """Embeds a text as the sum of its words' vectors, of unit length."""

    def __init__(self) -> None:
        self._vectors = np.random.default_rng(0).standard_normal((WORDS, WIDTH), np.float32)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed n texts as (n, D)."""
        result = np.empty((len(texts), WIDTH), np.float32)
        for start in range(0, len(texts), BATCH):
            words = [
                [zlib.crc32(word.encode()) % WORDS for word in text.split()]
                for text in texts[start : start + BATCH]
            ]
            bounds = np.cumsum([0, *map(len, words[:-1])])
            vectors = self._vectors[[word for each in words for word in each]]
            sums = np.add.reduceat(vectors, bounds)
            result[start : start + BATCH] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return torch.from_numpy(result)


def decode(mixes: Tensor, seed: Sequence[int]) -> list[str]:
    """Six words for each mix (n, D)."""
    top = mixes[:, :64].topk(6).indices.tolist()
    return [" ".join(f"word{column * 61 % WORDS}" for column in row) for row in top]


def write_rows(file: Path, rows: int) -> None:
    """Write labelled texts of 4 to 12 words, some of which are typical of the class."""
    draw = np.random.default_rng(0)
    with file.open("w", encoding="utf-8") as stream:
        for start in range(0, rows, WORDS):
            labels = draw.integers(CLASSES, size=min(WORDS, rows - start))
            common = draw.integers(WORDS, size=(len(labels), 6))
            typical = labels[:, None] * 10 + draw.integers(10, size=(len(labels), 6))
            lengths = draw.integers(2, 7, size=(len(labels), 2)).tolist()
            for label, (some, others), first, second in zip(
                labels.tolist(), lengths, common.tolist(), typical.tolist(), strict=True
            ):
                text = " ".join(f"word{number}" for number in first[:some] + second[:others])
                stream.write(f'{{"text": "{text}", "label": "class{label:02d}"}}\n')


def measure(rows: int, generated: int, pairing: str) -> dict[str, float]:
    """CPU seconds of each stage, and the peak memory of the whole process in GiB."""
    run(200, 64, pairing)  # what is imported and set up once
    found = run(rows, generated, pairing)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found | {"gib": peak}


def run(rows: int, generated: int, pairing: str) -> dict[str, float]:
    """CPU seconds of each stage."""
    seconds: dict[str, float] = {}
    encoder = WordEncoder()
    with tempfile.TemporaryDirectory() as temporary:
        datasets.config.HF_DATASETS_CACHE = Path(temporary) / "cache"
        write_rows(Path(temporary) / "rows.jsonl", rows)
        with timed("read", seconds):
            table = read_table(str(Path(temporary) / "rows.jsonl"), "text", "label")
            targets = read_targets(table.labels, None, None)
        plan = PairPlan(
            targets.groups,
            pairing=pairing,
            weights=parse_weights("beta:0.4"),
            seed=0,
            chunk_size=CHUNK,
            embeddings=lambda: producer.embeddings(),
        )
        producer = Producer(
            table.texts,
            targets.values,
            plan,
            encoder,
            decode,
            "fake",
            gate=lambda: gate,  # made below
        )
        with timed("embed", seconds):
            embeddings = producer.embeddings()
        with timed("pair", seconds):
            for chunk in range(plan.num_chunks(rows)):
                plan.chunk(0, chunk, rows)
        with timed("fit", seconds):
            gate = build_gate(table.texts, embeddings, targets.values, encoder, judges=("knn",))
            committee = build_committee(
                encoder,  # type: ignore[arg-type]  # the member needs no LLM
                encoder,
                table.texts,
                embeddings,
                targets,
                members=["encoder"],
                descriptions=list(targets.names),
                seed=0,
                calibration=lambda: [],
            )
        producer.labelling = Labelling(lambda: committee)
        with timed("generate", seconds):
            made = producer.produce(1, generated)
        with timed("pool", seconds):
            pool = MixupPool(Path(temporary) / "pool", 0)
            pool.begin_epoch(0, 0, generated)
            for start in range(0, generated, CHUNK):
                pool.append(made[start : start + CHUNK])
            for start in range(0, generated, 16):
                pool.draw(range(start, min(start + 16, generated)))
    return seconds


@contextmanager
def timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Add the CPU seconds of a block, of all threads."""
    started = time.process_time()
    yield
    seconds[name] = time.process_time() - started
    print(f"{name}: {seconds[name]:.2f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
