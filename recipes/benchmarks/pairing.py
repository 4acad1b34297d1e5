"""What pairing by neighbours costs: seconds and peak memory against the number of rows.

    python recipes/benchmarks/pairing.py --rows 1000 10000 100000 1000000

Every size runs in a process of its own, on random unit vectors of 384 numbers in 100 classes, and
pairs every row once. Prints a Markdown table. Beyond 20,000 rows (`local`) or 20,000 of a class
(`smote`) faiss is used: `pip install 'mixup_hf[large]'`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from mixup_hf import PairPlan, parse_weights

WIDTH, CHUNK = 384, 4096


def main() -> None:
    """Time each size, or, as the child that does it, one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--pairing", default="local", choices=["smote", "local"])
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.one, options.pairing, options.classes)))
        return
    print("| rows | seconds | microseconds a row | memory beyond the embeddings, MiB |")
    print("|---|---|---|---|")
    for rows in options.rows:
        command = [sys.executable, __file__, "--one", str(rows), "--pairing", options.pairing]
        command += ["--classes", str(options.classes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        each = 1e6 * found["seconds"] / rows
        print(
            f"| {rows:,} | {found['seconds']:.1f} | {each:.0f} | {found['mib']:.0f} |", flush=True
        )


def measure(rows: int, pairing: str, classes: int) -> dict[str, float]:
    """Pair `rows` random rows once."""
    draw = torch.Generator().manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(rows, WIDTH, generator=draw), dim=-1)
    labels = np.random.default_rng(0).integers(classes, size=rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    plan = PairPlan(
        labels,
        pairing=pairing,
        weights=parse_weights("uniform"),
        seed=0,
        chunk_size=CHUNK,
        embeddings=lambda: embeddings,
    )
    for chunk in range(plan.num_chunks(rows)):
        plan.chunk(0, chunk, rows)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "mib": (after - before) / 1024}


if __name__ == "__main__":
    main()
