"""What a checkpoint holds of the plugin: the rows made so far, which were used, and when to stop.

    checkpoint-N/mixup_hf/state.json             settings, used rows, auto_off
    checkpoint-N/mixup_hf/refill-00000/...       the pool's segments, hard links where possible
    checkpoint-N/mixup_hf/rehearsed.safetensors  the committee's copy of the model, if it has one

Segments never change once they are written, so a hard link in a checkpoint is as good as a copy and
takes no space.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerState, TrainingArguments

from mixup_hf import errors, runtime
from mixup_hf.training.pool import MixupPool

FOLDER = "mixup_hf"  # in a checkpoint
RUN_FOLDER = "_mixup_hf"  # in `output_dir`: `Trainer.push_to_hub` leaves out what begins so
_STATE_FILE = "state.json"
Used = Counter[tuple[int, int]]


@dataclass
class Saved:
    """The content of `state.json`.

    Attributes:
        settings: What the rows depend on.
        used: How often each row, by refill and index, was trained on by all processes.
        epoch: The mixing epoch of the checkpoint.
        stop_batch: From which batch of that epoch on nothing is mixed.
        off: Whether mixing is over, as `auto_off` decides.
        watch: State of `DevelopmentWatch`.
    """

    settings: dict[str, Any]
    used: Used
    epoch: int
    stop_batch: int
    off: bool = False
    watch: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        folder.mkdir(parents=True, exist_ok=True)
        used = [(refill, at, count) for (refill, at), count in sorted(self.used.items())]
        file = folder / _STATE_FILE
        partial = file.with_name(f".{_STATE_FILE}.partial")  # a kill leaves no half of it
        partial.write_text(json.dumps(self.__dict__ | {"used": used}), encoding="utf-8")
        os.replace(partial, file)

    @classmethod
    def read(cls, folder: Path) -> Saved | None:
        """What a checkpoint holds; None if it has nothing of the plugin."""
        file = folder / _STATE_FILE
        if not file.is_file():
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return cls._parse(content, folder)
        except errors.MixupError:
            raise
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise errors.InvalidInput(
                f"{file} is damaged ({error}). Resume from an earlier checkpoint."
            ) from error

    @classmethod
    def _parse(cls, content: dict[str, Any], folder: Path) -> Saved:
        if "stop_batch" not in content:
            raise errors.InvalidInput(
                f"The checkpoint {folder.parent} was written by an older version of mixup_hf, "
                "whose rows this one cannot draw in the same order. Finish the run with that "
                "version, or start again into another output_dir."
            )
        used = Counter({(refill, at): count for refill, at, count in content["used"]})
        return cls(**(content | {"used": used}))


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Where the plugin's part of the checkpoint of this step lies."""
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / FOLDER


def last_finished(folder: Path, *others: str) -> str | None:
    """The Trainer's last checkpoint in a folder that was saved to its end; None if there is none.

    transformers' own `get_last_checkpoint` also takes one whose saving was interrupted: it fails
    to load, or goes on from step 0 with the weights of a later one.

    Args:
        folder: The `output_dir`.
        others: JSON files that callbacks add to a checkpoint, which is complete with them only.
    """
    numbered = [each for each in folder.glob("checkpoint-*") if each.name[11:].isdigit()]
    for each in sorted(numbered, key=lambda path: int(path.name[11:]), reverse=True):
        try:
            for name in ("trainer_state.json", *others):  # transformers saves its own last
                json.loads((each / name).read_text(encoding="utf-8"))
            return str(each)
        except (OSError, ValueError):
            runtime.warn(f"{each} was not saved to its end, and is not resumed from.")
    return None


def resume(
    pool: MixupPool, settings: dict[str, Any], args: TrainingArguments, state: TrainerState
) -> Saved | None:
    """Take the pool from the checkpoint of this step; on a fresh start, forget older files.

    Returns:
        What the checkpoint holds; None on a fresh start, or if it has nothing of the plugin.

    Raises:
        InvalidInput: The checkpoint was made with other settings.
    """
    folder = checkpoint_folder(args, state)
    saved = Saved.read(folder) if state.global_step else None
    if saved is None and state.global_step > 0:
        runtime.warn(
            f"Resumed at step {state.global_step}, but {folder} holds no generated rows: they are "
            "made again from the seed. How often each was used before is not known."
        )
    if saved is not None:
        _require_same_settings(saved, settings, folder)
    _restore_pool(pool, None if saved is None else folder)
    return saved


def _require_same_settings(saved: Saved, settings: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with rows of another kind."""
    changed = sorted(
        key for key in {*saved.settings, *settings} if saved.settings.get(key) != settings.get(key)
    )
    if changed:
        raise errors.InvalidInput(
            f"The checkpoint {folder.parent} was made with other mixup settings, training rows or "
            f"aligner ({changed}). Resume with the same, or start into another output_dir."
        )


class Saves(Protocol):
    """Has weights of its own to put into checkpoints."""

    def save(self, folder: Path) -> None:
        """Save them into the plugin's part of a checkpoint."""
        ...


def write_checkpoint(
    folder: Path, saved: Saved, pool: MixupPool, others: Sequence[Saves | None] = ()
) -> None:
    """Write weights of `others`, the segments of used refills and the state into a checkpoint.

    A search for hyperparameters saves elsewhere, with checkpoints that are not resumed: it gets
    none of this.
    """
    if not folder.parent.is_dir():
        return
    folder.mkdir(exist_ok=True)
    for each in others:
        if each is not None:
            each.save(folder)
    for refill in {pool.refill, *(refill for refill, _ in saved.used)}:
        _link_tree(pool.path(refill), folder / pool.path(refill).name)
    saved.write(folder)  # last: with it, all is there


def _restore_pool(pool: MixupPool, folder: Path | None) -> None:
    """Make the pool's files those of a checkpoint, or none; every process calls this."""
    if runtime.is_local_main_process():
        shutil.rmtree(pool.folder, ignore_errors=True)
        for source in sorted(folder.glob("refill-*")) if folder is not None else ():
            _link_tree(source, pool.folder / source.name)
    runtime.wait_for_everyone()


def _link_tree(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(
            source,
            target,
            copy_function=link,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(".*"),
        )


def link(source: str, target: str) -> None:
    """Make `target` a hard link to `source`, or a copy where there are none."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
