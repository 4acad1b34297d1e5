"""kill -9 at a random moment, then the same command again: nothing is lost beyond one chunk.

Each trial forks a run, kills it after a random time, and runs it again to its end. The result must
be byte for byte that of a run that nobody killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

# What every run needs is imported once, before the forks.
import peft  # noqa: F401
import torch
import tqdm.auto
import transformers.trainer  # noqa: F401
from trials import Fault, Trial

from mixup_hf import InversedMixup, MixupConfig
from mixup_hf.align import align

HANG = 600  # seconds: a trial is up to three runs
CHUNK = 4
ROWS = 32
Work = Callable[[Path], None]


# What is killed. Each leaves `result.json` in its folder, and its progress in `progress`.


def augmenting(folder: Path) -> None:
    """Rows into a file, chunk by chunk; decoded sentences are kept in the store."""
    from tiny import make_inverter, make_rows

    from mixup_hf.data.tables import read_table
    from mixup_hf.training.augmentation import augment_file

    texts, labels = make_rows(16)
    data = folder / "train.jsonl"
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.chdir(folder)
    os.environ["MIXUP_HF_CACHE"] = str(folder / "cache")
    table = read_table("train.jsonl", "text", "label")
    config = MixupConfig(
        chunk_size=CHUNK, max_new_tokens=24, intrusion="off", label_source="parents"
    )
    mixup = InversedMixup(make_inverter(), table.texts, table.labels, config=config)
    source: dict[str, Any] = {"data": "train.jsonl", "name": None, "split": "train"}
    source |= {"eval_data": None, "unlabeled_file": None, "columns": ["text", "label", None]}
    progress = _progress(folder)
    augment_file("rows.jsonl", mixup, table, ROWS, data=source, on_chunk=progress)
    kept = {"reused": mixup.producer.reused, "decoded": mixup.producer.decoded}
    _finish(folder, kept, "rows.jsonl", "rows.jsonl.run.json")


def finetuning(folder: Path) -> None:
    """A Trainer with sentences decoded in the background, and a checkpoint every other step."""
    from tiny import make_dataset, make_inverter, make_rows, word_tokenizer
    from trainer_runs import LABELS, make_arguments, sharp_classifier
    from transformers import Trainer

    os.environ["MIXUP_HF_CACHE"] = str(folder / "cache")
    texts, labels = make_rows(12, LABELS)
    config = MixupConfig(
        chunk_size=CHUNK,
        max_new_tokens=16,
        intrusion="off",
        label_source="parents",
        background=True,
    )
    mixup = InversedMixup(make_inverter(), texts, labels, config=config)
    _count_chunks(mixup, _progress(folder))
    trainer = Trainer(
        model=sharp_classifier(),
        args=make_arguments(folder, num_train_epochs=4, save_strategy="steps", save_steps=2),
        train_dataset=make_dataset(texts, labels),
        processing_class=word_tokenizer(classifier=True),
        **mixup.trainer_kwargs(word_tokenizer(classifier=True)),
    )
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    state = {name: value.tolist() for name, value in trainer.model.state_dict().items()}
    plugin = next(each for each in trainer.callback_handler.callbacks if hasattr(each, "used_rows"))
    used = sorted((row.text, count) for row, count in plugin.used_rows())
    (folder / "weights.json").write_text(json.dumps([state, used], sort_keys=True))
    kept = {"reused": mixup.producer.reused, "decoded": mixup.producer.decoded}
    _finish(folder, kept, "weights.json")


def aligning(folder: Path) -> None:
    """An alignment of three stages with a checkpoint every third step."""
    from aligning import make_config

    partners = {name: str(_partners() / name) for name in ("encoder", "llm")}
    data = str(_partners() / "sentences.txt")
    os.chdir(folder)
    align(make_config(partners | {"data": data}, Path("run")))
    files = ("model.safetensors", "config.json", "lora/adapter_model.safetensors")
    _finish(folder, {}, *(f"run/aligner/{name}" for name in files))


@cache
def _partners() -> Path:
    from aligning import save_partners

    folder = Path(tempfile.mkdtemp(prefix="partners-"))
    save_partners(folder)
    return folder


def _last_checkpoint(folder: Path) -> str | None:
    """The last one that the Trainer has finished, and the plugin, whose state comes last."""
    found = folder.glob("checkpoint-*")
    done = [each for each in found if (each / "mixup_hf/state.json").is_file()]
    return str(max(done, key=lambda each: int(each.name.split("-")[1]))) if done else None


def _progress(folder: Path) -> Callable[[int], None]:
    stream = os.open(folder / "progress", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def note(rows: int) -> None:
        os.write(stream, b"%d\n" % rows)

    return note


def _count_chunks(mixup: InversedMixup, note: Callable[[int], None]) -> None:
    chunk = mixup.producer.chunk

    def counted(*args: int) -> Any:
        rows = chunk(*args)
        note(len(rows))
        return rows

    changed: Any = mixup.producer
    changed.chunk = counted


def _finish(folder: Path, kept: dict[str, int], *files: str) -> None:
    digests = {}
    for name in files:
        content = (folder / name).read_bytes().replace(str(folder).encode(), b"")
        digests[name] = hashlib.sha256(content).hexdigest()
    (folder / "result.json").write_text(json.dumps({"files": digests, "kept": kept}))


# Killing.


def run(work: Work, folder: Path, seconds: float | None = None) -> bool:
    """Run `work` in a process of its own; kill it after `seconds`. Whether it was killed."""
    pid = os.fork()
    if pid == 0:
        _child(work, folder)
    killed, started = False, time.monotonic()
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
        if seconds is not None and not killed and time.monotonic() - started > seconds:
            os.kill(pid, signal.SIGKILL)
            killed = True
        time.sleep(0.005)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise Fault((folder / "log").read_text()[-3000:])
    return False


def _child(work: Work, folder: Path) -> None:
    code = 1
    try:
        signal.alarm(0)
        # tqdm's own lock is one for all forks: killed while it held it, one would stop them all.
        for bars in (tqdm.std.tqdm, tqdm.auto.tqdm):  # the second may have a lock of its own
            bars.set_lock(threading.RLock())
        log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        torch.manual_seed(0)
        work(folder)
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@cache
def whole(work: Work) -> tuple[dict[str, str], float]:
    """Digests of a run that nobody kills, and the seconds it takes."""
    if work is aligning:
        _partners()  # made here, so that all forks share them
    results, times = [], []
    for _ in range(2):  # the first one takes longer
        folder = Path(tempfile.mkdtemp(prefix="whole-"))
        started = time.monotonic()
        run(work, folder)
        times.append(time.monotonic() - started)
        results.append(json.loads((folder / "result.json").read_text())["files"])
        shutil.rmtree(folder)
    if results[0] != results[1]:
        raise Fault("two runs that nobody killed differ")
    return results[0], min(times)


def killed(work: Work) -> Trial:
    """Kill a run once or twice at random moments, then let it end."""

    def trial(rng: random.Random, folder: Path) -> str:
        expected, seconds = whole(work)
        times = rng.choice([1, 1, 2])
        hits = sum(run(work, folder, rng.uniform(0.02, 1.05) * seconds) for _ in range(times))
        _nothing_half(folder)
        made = _noted(folder)
        run(work, folder)
        found = json.loads((folder / "result.json").read_text())
        if found["files"] != expected:
            raise Fault(f"another result after a kill: {found['files']} instead of {expected}")
        lost = made - found["kept"].get("reused", made) if work is augmenting else 0
        if hits and lost > CHUNK * hits:
            raise Fault(f"{lost} rows were decoded again after {hits} kills")
        return f"killed {hits} times"

    return trial


def _noted(folder: Path) -> int:
    """Rows that were reported as made, by the longest of the killed runs."""
    file = folder / "progress"
    rows = [int(line) for line in file.read_text().split()] if file.is_file() else []
    file.unlink(missing_ok=True)
    return min(ROWS, sum(rows))


def _nothing_half(folder: Path) -> None:
    """What stands under a final name is whole."""
    rows = folder / "rows.jsonl"
    if rows.is_file() and len([json.loads(line) for line in rows.open()]) != ROWS:
        raise Fault("half a file of rows under its final name")
    for state in folder.glob("checkpoint-*/mixup_hf/state.json"):
        json.loads(state.read_text())
    weights = folder / "run/aligner/model.safetensors"
    if weights.is_file():
        from safetensors.torch import load_file

        load_file(weights)


KINDS: dict[str, Trial] = {
    "augment": killed(augmenting),
    "finetune": killed(finetuning),
    "align": killed(aligning),
}
