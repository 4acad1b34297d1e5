"""Run by two processes: trainings whose model is shared out among them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import train_script
import trainer_runs
from accelerate import PartialState
from accelerate.utils import DistributedType

from mixup_hf import runtime

KINDS: dict[str, dict[str, Any]] = {
    "fsdp2": {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "transformer_layer_cls_to_wrap": ["BertLayer"],
        },
    },
}
CASES: dict[str, dict[str, Any]] = {
    "epochs": train_script.EPOCHS | {"save_strategy": "no"},
    "contrastive": train_script.CONTRASTIVE | train_script.UNEVEN,
}


def trained(folder: Path, case: str, **arguments: Any) -> dict[str, Any]:
    """Losses and gradient norms of a case, and the generated rows it used."""
    run = train_script.prepare(folder / case, CASES[case], **arguments).train()
    found = {"loss": run.logged("loss"), "grad_norm": run.logged("grad_norm"), "used": run.used()}
    return found | {"sharded": runtime.is_sharded(), "world": runtime.world_size()}


def pretend_gpus() -> None:
    """Let accelerate use FSDP on CPUs, where it leaves it out without a word."""
    built = trainer_runs.make_arguments

    def make_arguments(*args: Any, **settings: Any) -> Any:
        made = built(*args, **settings)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        return made

    trainer_runs.make_arguments = make_arguments


if __name__ == "__main__":
    kind, output = sys.argv[1], Path(sys.argv[2])
    PartialState(cpu=True)
    pretend_gpus()
    results = {case: trained(output, case, **KINDS[kind]) for case in CASES}
    (output / f"rank-{runtime.rank()}.json").write_text(json.dumps(results))
