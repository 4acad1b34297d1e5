"""Weights that FSDP 2 keeps in shards, in two processes over gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from aligning import save_partners
from safetensors.torch import load_file

TESTS = Path(__file__).parents[1]


def test_a_sharded_model_is_measured_and_saved_whole(tmp_path: Path) -> None:
    partners = json.dumps(save_partners(tmp_path))
    with socket.socket() as port:
        port.bind(("localhost", 0))
        number = port.getsockname()[1]
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    changes = {"PYTHONPATH": os.pathsep.join(paths), "ACCELERATE_USE_CPU": "true"}
    script = Path(__file__).with_name("sharded_script.py")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
        + ["--master_port", str(number), str(script), partners, str(tmp_path / "run")],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | changes,
        capture_output=True,
        text=True,
        timeout=120,  # a gather that one process leaves out would hang
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole, sharded = json.loads((tmp_path / "run" / "found.json").read_text())
    assert sharded["samples"] == whole["samples"]
    assert sharded["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    for name in ("model.safetensors", "lora/adapter_model.safetensors"):
        one, other = (load_file(tmp_path / "run" / kind / name) for kind in ("whole", "sharded"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
