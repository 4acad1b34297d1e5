"""How fast sentences are decoded, and what the plugin adds to training.

    python recipes/benchmarks/speed.py --output speed.json

Every round runs every case once, in turn, so that a noisy machine slows all of them; ratios are
taken within a round, medians over rounds. Sentences are decoded greedily from mixes of embedded
headlines, so that all cases have the same work; bf16 may end some a token sooner or later.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speed_decoding import decoding, profile, rows_without_decoding
from speed_processes import generate_alone, importing, processes
from speed_start import judging, starting
from speed_training import background, training


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--sentences", type=int, default=256, help="of a case in a round, or one batch if larger"
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--cases", nargs="*", help="of decoding, beside the first; default: all")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        generate_alone(options.sentences)
        return
    found = {name: PARTS[name](options) for name in options.parts}
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n")


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "decoding": lambda options: decoding(options.rounds, options.sentences, options.cases),
    "profile": lambda options: profile(),
    "training": lambda options: training(options.rounds),
    "import": lambda options: importing(options.rounds),
    "background": lambda options: background(),
    "start": lambda options: starting(),
    "judging": lambda options: judging(),
    "rows": lambda options: rows_without_decoding(),
    "processes": lambda options: processes(options.rounds, options.sentences),
}


if __name__ == "__main__":
    main()
