"""Which settings a finished stage was trained with: it is used again only under the same ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mixup_hf import errors, runtime
from mixup_hf.config import AlignConfig, StageConfig

_FILE = "settings.json"
# Where things are written, what is logged, what comes after: the weights do not depend on it.
_NOT_OF_THE_WEIGHTS = (
    "output_dir",
    "cache_dir",
    "log_steps",
    "save_steps",
    "eval_steps",
    "eval_sentences",
    "ratio_pairs",
    "guidance",
    "use_cpu",
    "max_minutes",
    "stages",
)


def stage_settings(
    config: AlignConfig, stage: StageConfig, fingerprints: dict[str, str]
) -> dict[str, Any]:
    """All that the weights at the end of a stage depend on, this stage and those before it.

    Args:
        config: The run's.
        stage: One of its stages.
        fingerprints: Digests of what the config names: encoder, LLM, sentences.
    """
    known = asdict(config)
    settings = {name: value for name, value in known.items() if name not in _NOT_OF_THE_WEIGHTS}
    if config.guided_training:  # it is part of the loss then
        settings["guidance"] = config.guidance
    upto = config.stages[: config.stages.index(stage) + 1]
    stages = {each.name: asdict(each) | {"minutes": config.stage_minutes(each)} for each in upto}
    return settings | {"stages": stages, "fingerprints": fingerprints}


def digest(texts: Sequence[str]) -> str:
    """A short digest of texts and their order."""
    found = hashlib.sha256()
    for text in texts:
        found.update(f"{len(text)}:{text}\n".encode())
    return found.hexdigest()[:16]


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Note with which settings a folder's weights are trained, or refuse those of another run.

    Raises:
        InvalidInput: The folder has weights that were trained with other settings.
    """
    file = folder / _FILE
    # As JSON reads them again: tuples are lists, keys are strings.
    wanted = json.loads(json.dumps(settings))
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    # Nothing was finished or saved yet: there is nothing that could be mistaken.
    used = (folder / "finished.json").is_file() or any(folder.glob("checkpoint-*"))
    used = used or (folder / "warmed.json").is_file()
    runtime.wait_for_everyone()
    if used and found != wanted:
        changed = ["all, by an older version"] if found is None else _changed(found, wanted)
        raise errors.InvalidInput(
            f"{folder} was trained with settings that differ from those of this run "
            f"({', '.join(changed)}). Choose another `output_dir`, the config as it was, or delete "
            "the folder to train it again."
        )
    if runtime.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    runtime.wait_for_everyone()


def _changed(found: Any, wanted: Any, prefix: str = "") -> list[str]:
    """The dotted names of settings that differ, with both values."""
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return [] if found == wanted else [f"{prefix}: {found!r}, now {wanted!r}"]
    names = [*found, *(name for name in wanted if name not in found)]
    parts = (
        _changed(found.get(name), wanted.get(name), f"{prefix}.{name}".lstrip("."))
        for name in names
    )
    return [each for part in parts for each in part]
