"""Campaigns of faults: hostile checkpoints, nasty inputs, a full disk, kill -9, many batches.

    python recipes/reliability/campaign.py hostile --minutes 5 --seed 1

Prints the seed, how many trials of each kind ran, how they ended, and the traceback of every fault;
exit code 1 if there was one. `--only KIND --number N` repeats a trial. Needs the packages of the
extra `dev`, no network and no models: all models are tiny and random.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

CAMPAIGNS = ("hostile", "inputs", "faults", "kills", "batches")


def main() -> None:
    """Run the campaign that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="this kind of trial alone, or those whose names begin so")
    parser.add_argument("--number", type=int, help="this trial alone")
    options = parser.parse_args()
    if options.minutes is None and options.count is None and options.number is None:
        options.count = 100
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from trials import campaign, limit_memory

    chosen = importlib.import_module(options.campaign)
    limit_memory()
    tally = campaign(
        chosen.KINDS,
        seed=options.seed,
        count=options.count,
        minutes=options.minutes,
        only=options.only,
        number=options.number,
        hang=getattr(chosen, "HANG", 300),
    )
    print(f"{options.campaign}, {tally.report()}")
    for what, number in getattr(chosen, "COUNTED", {}).items():
        print(f"  {what}: {number}")
    sys.exit(1 if tally.faults else 0)


if __name__ == "__main__":
    main()
