"""The files of a fine-tuning run: what is written, and what an earlier run left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixup_hf import errors, runtime
from mixup_hf.data.row_files import mixed_json
from mixup_hf.data.row_formats import OF_A_RUN
from mixup_hf.data.row_writer import write_rows
from mixup_hf.data.targets import SINGLE_LABEL, Targets
from mixup_hf.training.checkpointing import FOLDER, RUN_FOLDER
from mixup_hf.types import MixedExample

METRICS, HISTORY, MIXED, BASELINE = "metrics.json", "history.json", OF_A_RUN, "baseline"
_MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_MEASURED = ("quality.json", "structure.json", "audit.json")  # of an earlier run's rows
_OWN = (MIXED, HISTORY, *_MEASURED, *_MODEL, METRICS)


def check(folder: Path) -> None:
    """Raise unless a fresh run may write into `folder`.

    Raises:
        InvalidInput: The folder cannot be written, or holds checkpoints that may be worth resuming.
    """
    found = checkpoints(folder)
    if found:
        raise errors.InvalidInput(
            f"`output_dir` = {str(folder)!r} holds checkpoints of an earlier run "
            f"({found[-1].relative_to(folder)}). Resume it with "
            "`training.resume_from_checkpoint: true`, delete them, or choose another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.bad(
            "output_dir", "be a folder that can be written", str(folder), f"{error}."
        ) from error


def refuse_inputs(folder: Path, inputs: dict[str, str | None]) -> None:
    """Raise if what a run reads, by setting, is among the earlier results that it removes.

    Those are files of a run's in the folder, and all in that of its baseline; other files stay.

    Raises:
        InvalidInput: One is.
    """
    cleared, baseline = folder.resolve(), (folder / BASELINE).resolve()
    for name, source in inputs.items():
        if source is None or not Path(source).exists():
            continue
        read = Path(source).resolve()
        among = {cleared / own for own in _OWN} if read.is_file() else {cleared}
        if read in among or read.is_relative_to(baseline):
            rule = f"not be what a run into `output_dir` = {str(folder)!r} removes or replaces"
            raise errors.bad(name, rule, source, "Choose another `output_dir`.")


def clear(folder: Path) -> None:
    """Remove what an earlier run of this command wrote, and log it; other files stay."""
    if not runtime.is_main_process():
        return
    remove_checkpoints(folder / BASELINE)  # a baseline is not resumed
    removed = _clear(folder) + [f"{BASELINE}/{name}" for name in _clear(folder / BASELINE)]
    if removed:
        runtime.log(f"Removed files of an earlier run from {folder}: {', '.join(removed)}.")


def checkpoints(folder: Path) -> list[Path]:
    """The Trainer's checkpoints in a folder, by step."""
    found = [each for each in folder.glob("checkpoint-*") if each.name[11:].isdigit()]
    return sorted(found, key=lambda each: int(each.name[11:]))


def remove_checkpoints(folder: Path) -> None:
    """Delete the Trainer's checkpoints once the best of them is saved as the model."""
    for each in checkpoints(folder):
        shutil.rmtree(each)


def save_model(trainer: Any, folder: Path) -> None:
    """Save a Trainer's model and tokenizer, without the Trainer's pickled arguments."""
    trainer.save_model(str(folder))
    if runtime.is_main_process():
        (folder / "training_args.bin").unlink(missing_ok=True)


def write(
    folder: Path,
    metrics: dict[str, Any],
    history: Sequence[dict[str, float]],
    used: Sequence[tuple[MixedExample, int]],
    texts: Sequence[str],
    targets: Targets | None = None,
) -> None:
    """Write `metrics.json`, `history.json` and, for a run that mixed, `mixed.jsonl`.

    Args:
        folder: The output folder.
        metrics: The content of `metrics.json`.
        history: What the Trainer logged.
        used: The mixed rows that were trained on, and how often.
        texts: The training texts (N).
        targets: Their labels; None for a run that did not mix.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    (folder / HISTORY).write_text(json.dumps(list(history)) + "\n", encoding="utf-8")
    if used and targets is not None:
        lines = [_line(row, texts, targets) | {"times_used": count} for row, count in used]
        write_rows(folder / MIXED, lines)


def _line(row: MixedExample, texts: Sequence[str], targets: Targets) -> dict[str, Any]:
    """A row with its parents' texts; with several classes, also with their classes."""
    line = mixed_json(row, texts, targets.names, problem_type=targets.problem_type)
    if targets.problem_type == SINGLE_LABEL:
        line["parent_labels"] = [targets.names[int(targets.groups[at])] for at in row.parents]
    return line


def _clear(folder: Path) -> list[str]:
    """Remove this command's files where it has left its mark, the metrics."""
    if not (folder / METRICS).is_file():
        return []
    removed = [name for name in _OWN if (folder / name).is_file()]
    for name in removed:
        (folder / name).unlink()
    for name in (RUN_FOLDER, FOLDER):  # in 0.2 it had the name that it has in checkpoints
        if (folder / name / "pool").is_dir():  # and not a user's folder of that name
            shutil.rmtree(folder / name)
            removed.append(f"{name}/")
    return removed
