"""What is timed in processes of its own: an import, and two that decode against one."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from accelerate import PartialState
from speed_setup import bare, headlines

from mixup_hf import InversedMixup

SCRIPT = Path(__file__).with_name("speed.py")  # run with `--worker` in every process


def importing(rounds: int) -> dict[str, float]:
    """`import mixup_hf` against `import transformers`."""
    ratios = []
    for _ in range(rounds):
        took = []
        for name in ("transformers", "mixup_hf"):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            took.append(time.perf_counter() - started)
        ratios.append(took[1] / took[0])
    ratio = statistics.median(ratios)
    print(f"`import mixup_hf` takes {ratio:.2f} times `import transformers`.")
    return {"import_ratio": ratio}


def processes(rounds: int, count: int) -> dict[str, float]:
    """Two processes of one thread each against one."""
    ratios = []
    for _ in range(rounds):
        took = []
        for hardware in ("cpu", "cpu_two_processes"):
            configs = SCRIPT.parents[1] / "accelerate_configs"
            command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
            command += [str(configs / f"{hardware}.yaml"), "--main_process_port", "0"]
            command += [str(SCRIPT), "--worker", "--sentences", str(count)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            took.append(float(done.stdout.splitlines()[-1]))
        ratios.append(took[0] / took[1])
    ratio = statistics.median(ratios)
    print(f"Two processes of one thread decode {ratio:.2f} times as fast as one.")
    return {"speedup": ratio}


def generate_alone(count: int) -> None:
    """What one of several processes does: its share of the rows, on one thread."""
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    texts, labels = headlines()
    mixup = InversedMixup.from_pretrained(
        texts=texts, labels=labels, config=bare(reuse=False, chunk_size=64)
    )
    mixup.producer.embeddings()
    state.wait_for_everyone()
    started = time.perf_counter()
    mixup.generate(count)
    if state.is_main_process:
        print(json.dumps(time.perf_counter() - started))
