"""Run by two processes: an alignment model that FSDP shards is inverted and saved."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from aligning import make_config
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from mixup_hf import runtime
from mixup_hf.align.session import Session
from mixup_hf.align.train import reconstruct


def main() -> None:
    PartialState(cpu=True)
    partners, output = json.loads(sys.argv[1]), Path(sys.argv[2])
    config = make_config(partners, output, num_hints=0, stages=STAGES)
    session = Session(config, torch.device("cpu"))
    whole = reconstruct(session)
    session.save(output / "whole")
    mesh = init_device_mesh("cpu", (runtime.world_size(),))
    for layer in session.model.base.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(session.model, mesh=mesh)
    session.model(**session.batches[0])  # a step of training, which initializes FSDP
    sharded = reconstruct(session)
    session.save(output / "sharded")
    if runtime.is_main_process():
        (output / "found.json").write_text(json.dumps([whole, sharded]))


if __name__ == "__main__":
    from mixup_hf.config import StageConfig

    STAGES = (StageConfig(name="a"),)
    main()
