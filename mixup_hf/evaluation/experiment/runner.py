"""Runs an experiment: each job once, shared among processes, with results appended to a file."""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

from filelock import FileLock, Timeout

from mixup_hf import errors, registry
from mixup_hf.config import DataConfig, FinetuneConfig
from mixup_hf.data.tables import LabelledTexts, read_splits
from mixup_hf.data.targets import class_indices
from mixup_hf.evaluation.experiment.config import ExperimentConfig
from mixup_hf.evaluation.experiment.models import Models
from mixup_hf.evaluation.experiment.predicting import Predicts, measure
from mixup_hf.evaluation.experiment.regimes import draw_rows, flip_labels
from mixup_hf.evaluation.experiment.task import Task, Trained, prepare
from mixup_hf.finetuning.runner import Attaches, fit

_LOGGER = logging.getLogger(__name__)
_FILE = "runs.jsonl"


@dataclass(frozen=True)
class Job:
    """One run: an arm on a data set, with a given number of shots and a seed."""

    data: str
    shots: int
    seed: int
    arm: str

    @property
    def folder(self) -> str:
        """Folder of its files, relative to the output folder."""
        return f"{self.data}/{self.shots}-shot/seed-{self.seed}/{self.arm}"


@dataclass(frozen=True)
class Run:
    """A completed job.

    Attributes:
        job: The job that was run.
        metrics: Metrics by name, without the prefix `test_`.
        correct: Whether each test row was classified correctly (N).
    """

    job: Job
    metrics: dict[str, float]
    correct: list[bool]


def jobs(config: ExperimentConfig) -> list[Job]:
    """List all jobs seed by seed, so that an interrupted experiment still has complete pairs."""
    return [
        Job(data, shots, seed, arm)
        for seed in config.seeds
        for shots in config.shots
        for data in config.sets
        for arm in config.every_arm
    ]


class Results:
    """The append-only file of runs.

    A line truncated by a kill or a full disk is skipped with a warning.

    Args:
        config: The experiment.

    Raises:
        ValueError: On reading, if a run was made with different settings.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self.file = Path(config.output_dir) / _FILE
        self._digest_of = config.digest_of
        self._arms = {*registry.names("arm"), *config.variants}
        self._wanted = set(config.every_arm)
        self._sets = config.sets

    def read(self) -> dict[Job, Run]:
        """Return the runs completed so far."""
        found = {}
        for number, run, settings in read_runs(self.file):
            job = run.job
            if job.arm not in self._arms or job.data not in self._sets:
                continue  # no longer part of the experiment
            if settings != self._digest_of(job.arm, job.data):
                if job.arm not in self._wanted:
                    continue  # an arm of another config that shares this folder
                raise errors.InvalidInput(
                    f"{self.file}, line {number}, was run with other settings than those of this "
                    "experiment, and cannot be compared. Give another `output_dir`, or the config "
                    "as it was."
                )
            found[job] = run
        return found

    def append(self, run: Run) -> None:
        """Append a run in a single write."""
        content = {
            "job": asdict(run.job),
            "settings": self._digest_of(run.job.arm, run.job.data),
            "metrics": run.metrics,
            "correct": "".join("01"[right] for right in run.correct),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        before = self.file.read_bytes() if self.file.is_file() else b""
        # If the last line was truncated, start a new one.
        line = ("\n" if before and not before.endswith(b"\n") else "") + json.dumps(content) + "\n"
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())


def read_runs(file: Path) -> Iterator[tuple[int, Run, str]]:
    """Yield the runs of a file, each with its line number and the digest of its settings.

    A line that cannot be read is skipped with a warning; a file that is not there has no runs.
    """
    lines = file.read_bytes().splitlines() if file.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            content = json.loads(line.decode("utf-8"))
            job = Job(**content["job"])
            correct = [sign == "1" for sign in content["correct"]]
            run, settings = Run(job, content["metrics"], correct), str(content["settings"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            _LOGGER.warning("%s, line %d, is no run (%s): left out.", file, number, error)
            continue
        yield number, run, settings


@contextmanager
def _held(lock: FileLock) -> Iterator[bool]:
    """Hold a lock, if no other process does."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


class Experiment:
    """Runs the remaining jobs of an experiment; if restarted, it continues where it stopped.

    Several processes may share one output folder: a job is locked while it runs, and the lock is
    released when its process ends.

    Args:
        config: The experiment.
        models: The inverter and its LLM. Default: those of `config.mixup`.
    """

    def __init__(self, config: ExperimentConfig, models: Models | None = None) -> None:
        self.config = config
        self.results = Results(config)
        self.models = models or Models(config.mixup)
        self._splits: dict[str, tuple[LabelledTexts, LabelledTexts]] = {}

    def run(self, on_run: Callable[[Run], object] | None = None) -> dict[Job, Run]:
        """Run every job that is neither done nor running elsewhere, and return all runs so far.

        Arms on the same rows share a committee and sentences, so a process first leaves rows alone
        that another one is working on, and then helps with what is left of them.
        """
        planned = jobs(self.config)
        for rows, members in groupby(planned, key=lambda job: str(Path(job.folder).parent)):
            with _held(self._lock(rows, "rows.lock")) as free:
                for job in members if free else ():
                    self._run(job, on_run)
        for job in planned:
            self._run(job, on_run)
        return self.results.read()

    def _run(self, job: Job, on_run: Callable[[Run], object] | None) -> None:
        with _held(self._lock(job.folder, "run.lock")) as free:
            if free and job not in self.results.read():
                done = self._named(job)
                self.results.append(done)
                if on_run is not None:
                    on_run(done)

    def _lock(self, folder: str, name: str) -> FileLock:
        file = self.results.file.parent / folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(file)

    def _named(self, job: Job) -> Run:
        try:
            return self._measure(job)
        except Exception as error:
            error.add_note(f"This was the run {job.folder} of the experiment.")
            raise

    def _measure(self, job: Job) -> Run:
        started, used = time.monotonic(), time.process_time()
        task, test = self._task(job)
        prepared = prepare(job.arm, task, variant=job.arm in self.config.variants)
        making = time.monotonic() - started
        if isinstance(prepared, Predicts):
            metrics, correct = measure(prepared, task.train, test, task.names)
        else:
            metrics, correct = self._fit(task, test, prepared)
        took = {
            "seconds": time.monotonic() - started,
            "making_seconds": making,
            "cpu_seconds": time.process_time() - used,
        }
        return Run(job, metrics | took, correct)

    def _task(self, job: Job) -> tuple[Task, LabelledTexts]:
        """What the arm works with, and the test rows."""
        config, data = self.config, self.config.sets[job.data]
        table, test = self._tables(job.data, data)
        train, unlabeled = draw_rows(
            table,
            job.shots,
            job.seed,
            imbalance=config.imbalance,
            unlabeled=config.unlabeled,
        )
        _, names = class_indices(train.labels, None, None)
        folder = self.results.file.parent / job.folder
        run = FinetuneConfig(
            data=replace(data, shots=job.shots),
            output_dir=str(folder),
            model=config.model,
            model_revision=config.model_revision,
            seed=job.seed,
            training=config.training_for(job.arm),
        )
        task = Task(
            train=flip_labels(train, config.label_noise, job.seed),
            eval_texts=test.texts,
            names=names,
            mixup=config.mixup_of(job.arm) if job.arm in config.variants else config.mixup,
            rows=config.rows,
            seed=job.seed,
            folder=folder,
            models=self.models,
            run=run,
            freeze_embeddings=config.freeze_embeddings,
            unlabeled=unlabeled,
        )
        return task, test

    def _fit(
        self, task: Task, test: LabelledTexts, prepared: Attaches | Trained | None
    ) -> tuple[dict[str, float], list[bool]]:
        """Fine-tune, and keep what can be compared between arms."""
        run = task.run
        if isinstance(prepared, Trained):
            run = replace(run, training=run.training | prepared.training)
            prepared = prepared.plugin
        config = self.config
        fitted = fit(
            run,
            task.train,
            test,
            task.names,
            prepared,
            lora=config.lora,
            freeze_embeddings=config.freeze_embeddings,
        )
        kept = {
            name if name == "test_rows" else name.removeprefix("test_"): value
            for name, value in fitted.metrics.items()
            if isinstance(value, (int, float)) and name != "seed"
        }
        return kept, fitted.correct

    def _tables(self, name: str, data: DataConfig) -> tuple[LabelledTexts, LabelledTexts]:
        if name not in self._splits:
            train, test = read_splits(data)
            most = self.config.test_rows
            if most is not None and most < len(test):
                test = test.take(sorted(random.Random(0).sample(range(len(test)), most)))
            self._splits[name] = train, test
        return self._splits[name]
