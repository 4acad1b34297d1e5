"""A run killed while sentences are decoded: what was decoded is kept, what follows is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("killed_script.py")
ROWS, CHUNK = 12, 4  # of a refill; it dies after the first chunk of the third refill


def run(folder: Path, cache: Path, *words: str) -> dict[str, Any]:
    environment = os.environ | {"MIXUP_HF_CACHE": str(cache)}
    command = [sys.executable, str(SCRIPT), str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == (-signal.SIGKILL if words else 0), done.stderr
    return {} if words else json.loads((folder / "result.json").read_text())


def test_a_run_killed_while_decoding_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", tmp_path / "cache-1")
    assert (whole["decoded"], whole["reused"]) == (4 * ROWS, 0)

    run(tmp_path / "killed", tmp_path / "cache-2", "kill")
    resumed = run(tmp_path / "killed", tmp_path / "cache-2")
    assert resumed["weights"] == whole["weights"]
    # Two refills are in the checkpoint, one chunk of the third in the store.
    assert (resumed["decoded"], resumed["reused"]) == (2 * ROWS - CHUNK, CHUNK)
