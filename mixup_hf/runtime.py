"""Ranks, seeds and main-process logging: the only place that reads accelerate's state."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.data_loader import DataLoaderDispatcher, get_sampler
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedType,
    broadcast,
    broadcast_object_list,
    gather_object,
    parse_flag_from_env,
)
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from tqdm.auto import tqdm

_LOGGER = logging.getLogger("mixup_hf")
_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
_LISTENERS: list[Callable[[], object]] = []
K = TypeVar("K")
T = TypeVar("T")


def rank() -> int:
    """This process's index among all processes; 0 outside a distributed run."""
    return int(PartialState().process_index)


def world_size() -> int:
    """How many processes train together; 1 outside a distributed run."""
    return int(PartialState().num_processes)


def processes_started() -> int:
    """How many processes the launcher has started; on CPUs they may not train together."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def join_processes() -> None:
    """Join the launcher's processes on CPUs too, before anything asks for ranks; all must call."""
    if processes_started() > 1 and not torch.accelerator.is_available():
        PartialState(cpu=True)


def is_local_main_process() -> bool:
    """Whether this process is the first on its machine."""
    return bool(PartialState().is_local_main_process)


def is_main_process() -> bool:
    """Whether this is the process that logs and writes files."""
    return bool(PartialState().is_main_process)


def local_device() -> torch.device:
    """The device of this process: accelerate's, or the one its local rank will get.

    Creates no accelerate state: `TrainingArguments` decides on that later, possibly for the CPU.
    """
    if PartialState._shared_state:
        return torch.device(PartialState().device)
    if not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"):
        return torch.device("cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def device_of(given: torch.device | str | None) -> torch.device:
    """The device meant by a setting: "cuda" without a number is this process's own GPU.

    Args:
        given: A device; None for this process's.
    """
    own = local_device()
    if given is None:
        return own
    device = torch.device(given)
    return own if str(device) == own.type else device  # without a number


def on_device(device: torch.device | None) -> AbstractContextManager[Any]:
    """Make a GPU the current one of this thread for a block; other devices need no such thing.

    What names no device, such as a cache or a kernel's workspace, otherwise lands on the first GPU.
    """
    return torch.cuda.device(device) if device and device.type == "cuda" else nullcontext()


def current_gpu() -> torch.device | None:
    """The current GPU of this thread; None while no GPU is in use. New threads begin on the first.

    Initializes nothing.
    """
    if not torch.cuda.is_initialized():
        return None
    return torch.device("cuda", torch.cuda.current_device())


def memory_ran_out(error: Exception) -> bool:
    """Whether `error` is an out-of-memory error of any device; if so, its cache is emptied."""
    found: bool = should_reduce_batch_size(error)
    if found:
        free_memory()
    return found


def free_memory() -> None:
    """Collect what nothing refers to any more, and empty the cache of the device."""
    clear_device_cache(garbage_collection=True)


def is_dispatched(loader: object) -> bool:
    """Whether the main process builds all batches and dispatches slices to the others."""
    return isinstance(loader, DataLoaderDispatcher)


def sampler_of(loader: Any) -> Any:
    """The sampler behind a loader that accelerate prepared; None if it cannot be found."""
    return get_sampler(loader)


def wait_for_everyone() -> None:
    """Block until every process has reached this point."""
    PartialState().wait_for_everyone()


def agree(value: float) -> float:
    """The main process's `value`, on every process."""
    if world_size() == 1:
        return value
    box = [value]
    broadcast_object_list(box, from_process=0)
    return float(box[0])


def is_sharded() -> bool:
    """Whether each process has only a part of the model being trained."""
    return bool(AcceleratorState._shared_state) and AcceleratorState().distributed_type in _SHARDED


def sharding_asked(args: Any) -> str | None:
    """`fsdp` or `deepspeed`, if the training arguments or `accelerate launch` ask for it."""
    for name in ("fsdp", "deepspeed"):
        flag = f"ACCELERATE_USE_{name.upper()}"
        if getattr(args, name, None) or parse_flag_from_env(flag):
            return name
    return None


def agree_on_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The main process's tensors, of the same names and shapes, on every process."""
    if world_size() == 1:
        return state
    found: dict[str, torch.Tensor] = broadcast(state, from_process=0)
    return found


def anywhere(condition: bool) -> bool:
    """Whether `condition` holds on any process; the same answer on every process."""
    return condition if world_size() == 1 else any(gather_object([condition]))


def smallest(value: int) -> int:
    """The smallest `value` of any process, on every process."""
    if world_size() == 1:
        return value
    return int(min(gather_object([value])))


def merge(part: dict[int, list[T]]) -> dict[int, list[T]]:
    """The union of all processes' dicts, on every process."""
    if world_size() == 1:
        return part
    union: dict[int, list[T]] = {}
    for each in gather_object([part]):
        union |= each
    return union


def total(counts: Counter[K]) -> Counter[K]:
    """The sum of all processes' counts, on every process."""
    if world_size() == 1:
        return counts
    result: Counter[K] = Counter()
    for each in gather_object([counts]):
        result.update(each)
    return result


def log(message: str) -> None:
    """Log `message` at INFO on the main process only."""
    if is_main_process():
        _LOGGER.info(message)


def announce(message: str) -> None:
    """Print `message` on the main process, without breaking a progress bar, or log it at INFO.

    For the few lines that a user who has configured no logging should see.
    """
    if is_main_process():
        if _LOGGER.isEnabledFor(logging.INFO):
            _LOGGER.info(message)
        else:
            tqdm.write(message, file=sys.stderr)


def warn(message: str) -> None:
    """Log `message` at WARNING on the main process only."""
    if is_main_process():
        _LOGGER.warning(message)


@contextmanager
def ticking(bar: Any, seconds: float = 1.0, delay: float = 0.0) -> Iterator[None]:
    """Redraw a tqdm bar after steps of work, at most every `seconds`, while the block runs.

    Not before `delay` seconds: tqdm does not clear a bar that it has not shown itself.

    A chunk is decoded as one batch, and a committee is fitted before the first: each may take many
    seconds, in which the bar would stand still. Steps of all threads count.
    """
    last = time.monotonic() + max(0.0, delay - seconds)

    def redraw() -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            bar.refresh()

    _LISTENERS.append(redraw)
    try:
        yield
    finally:
        _LISTENERS.remove(redraw)


def step_done() -> None:
    """Let the bars of `ticking` move: tokens decoded, a layer passed, a model tuned a step."""
    for listener in list(_LISTENERS):
        listener()


@contextmanager
def layers_as_steps(model: torch.nn.Module) -> Iterator[None]:
    """Count the pass of each of a model's layers as a step of work while the block runs.

    A batch of long texts may take many seconds.
    """
    lists = [each for each in model.modules() if isinstance(each, torch.nn.ModuleList)]
    layers: Any = max(lists, key=len, default=[model])

    def tell(*_: Any) -> None:
        step_done()

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(tell).remove)
        yield


@contextmanager
def progress_bar(
    total: int, desc: str, *, delay: float = 2.0, leave: bool = True, disable: bool = False
) -> Iterator[Any]:
    """A tqdm bar, shown once it has taken `delay` seconds, that `ticking` redraws."""
    bar = tqdm(total=total, desc=desc, delay=delay, leave=leave, disable=disable)
    with bar, ticking(bar, delay=delay):
        yield bar


def memory_in_use() -> str:
    """How much memory this process takes now: of its GPU if it has one, else of the machine."""
    if local_device().type == "cuda":
        return f"{torch.cuda.memory_allocated(local_device()) / 2**30:.1f} GiB of GPU memory"
    import psutil  # a dependency of accelerate

    return f"{psutil.Process().memory_info().rss / 2**30:.1f} GiB of memory"


def counter_rng(seed: int, *counters: int) -> np.random.Generator:
    """A generator that is a pure function of (seed, counters).

    Counter-based seeds have no state to save: chunk 7 of epoch 2 draws the same numbers on any
    rank, in any order and after any resume. The global generators are never touched.
    """
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=counters))
