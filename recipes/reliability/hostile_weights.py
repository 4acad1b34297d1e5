"""Hostile weights: pickles, lying headers, damaged bytes, types and shapes they must not have."""

from __future__ import annotations

import json
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import torch
from checkpoint_box import WEIGHTS, Box, Payload
from trials import Trial, unchanged


def pickled(rng: random.Random, folder: Path) -> str:
    """Weights that are a pickle, under their own name or under that of safetensors."""
    box, name = Box(folder), rng.choice(WEIGHTS)
    target = box.folder / name
    content = pickle.dumps(Payload(box.bait), protocol=rng.choice([0, 2, 4]))
    if rng.random() < 0.5:
        torch.save({"x": Payload(box.bait)}, target)
        content = target.read_bytes()
    target.write_bytes(content)
    if rng.random() < 0.5:
        bin_name = "adapter_model.bin" if "lora" in name else "pytorch_model.bin"
        target.rename(target.with_name(bin_name))
    return box.refused("safetensors", "cannot be loaded", "cannot be read")


def pickled_beside(rng: random.Random, folder: Path) -> str:
    """Good weights, with pickles beside them that nobody asked for."""
    box = Box(folder)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "adapter_model.bin"):
        for place in ("aligner", "aligner/lora", "encoder", "llm"):
            if rng.random() < 0.5:
                torch.save(Payload(box.bait), box.folder / place / name)
    with unchanged(box.bait):
        box.use()
    return "accepted"


def header(rng: random.Random, folder: Path) -> str:
    """A safetensors file whose header lies."""
    box, name = Box(folder), rng.choice(WEIGHTS)
    file = box.folder / name
    whole = file.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    head, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    first = next(key for key in head if key != "__metadata__")
    lie = rng.randrange(8)
    if lie == 0:
        length = rng.choice([2**63, 2**40, 100_000_001, len(whole) + 1])
        file.write_bytes(struct.pack("<Q", length) + whole[8:])
        return box.refused()
    changes: list[Any] = [
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [10, 0]},
        {"shape": [2**31, 2**31]},
        {"shape": [-1]},
        {"dtype": "Q99"},
        {"data_offsets": head[first]["data_offsets"] + [1]},
        {"shape": [2**62, 0]},
    ]
    head[first] |= changes[lie - 1]
    text = json.dumps(head).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return box.refused()


def flipped(rng: random.Random, folder: Path) -> str:
    """A few bytes of any file changed, or the file cut."""
    box = Box(folder)
    file = rng.choice([each for each in sorted(box.folder.rglob("*")) if each.is_file()])
    content = bytearray(file.read_bytes())
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.2:
        content = content[: rng.randrange(len(content))]
    file.write_bytes(content)
    return box.read()


def dtypes(rng: random.Random, folder: Path) -> str:
    """Weights of the aligner of a type that is no floating point number."""
    box, name = Box(folder), rng.choice(WEIGHTS[:2])
    kind = rng.choice([torch.int64, torch.int8, torch.bool, torch.uint8, torch.complex64])

    def change(state: dict[str, torch.Tensor]) -> None:
        key = rng.choice(sorted(k for k, v in state.items() if v.is_floating_point()))
        state[key] = state[key].to(kind)

    box.weights(name, change)
    return box.refused("is of type")


def not_finite(rng: random.Random, folder: Path) -> str:
    """NaN or infinity among the weights."""
    box, name = Box(folder), rng.choice(WEIGHTS)
    value = rng.choice([float("nan"), float("inf"), -float("inf")])

    def change(state: dict[str, torch.Tensor]) -> None:
        key = rng.choice(sorted(k for k, v in state.items() if v.is_floating_point()))
        state[key].view(-1)[rng.randrange(state[key].numel())] = value

    box.weights(name, change)
    return box.refused("finite")


def shapes(rng: random.Random, folder: Path) -> str:
    """A tensor of another shape, one too many, or one missing."""
    box, name = Box(folder), rng.choice(WEIGHTS[:2])

    def change(state: dict[str, torch.Tensor]) -> None:
        key, how = rng.choice(sorted(state)), rng.randrange(3)
        if how == 0:
            state[key] = torch.zeros(3, 5)
        elif how == 1:
            del state[key]
        else:
            state["another.weight"] = torch.zeros(2)

    box.weights(name, change)
    return box.refused()


TRIALS: tuple[Trial, ...] = (pickled, pickled_beside, header, flipped, dtypes, not_finite, shapes)
