"""FSDP 2, in two processes over gloo, trains as one process does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from distributed import sharded_training_script as script

TESTS = Path(__file__).parents[1]
HERE = Path(__file__).parent
SECONDS = 300  # a collective call that one process leaves out would hang


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("alone")
    return {case: script.trained(folder, case) for case in script.CASES}


@pytest.mark.parametrize("kind", script.KINDS)
def test_a_sharded_training_is_that_of_one_process(
    kind: str, alone: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    changes = {"PYTHONPATH": os.pathsep.join(paths), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
        + ["--master_port", str(port), script.__file__, kind, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | changes,
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    for case, single in alone.items():
        assert not single["sharded"] and len(single["loss"]) == (6 if case == "epochs" else 1)
        for rank in ranks:
            found = rank[case]
            assert found["sharded"] and found["world"] == 2
            # Later losses are those of weights that earlier steps have changed.
            assert found["loss"] == pytest.approx(single["loss"], abs=1e-3)
            assert found["grad_norm"] == pytest.approx(single["grad_norm"], rel=1e-3)
            assert found["used"] == [list(pair) for pair in single["used"]]
