"""Weights in one piece while FSDP keeps them in shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Gather the weights of a model that FSDP 2 shards, on every process, for as long as it lasts.

    A part of such a model can then be run without going through its outermost module. Gathering
    is collective: every process has to come here, and run the same forward passes. Without FSDP,
    nothing happens.
    """
    from torch.distributed.fsdp import FSDPModule

    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()
