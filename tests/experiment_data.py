"""Experiments on tiny models, and runs that were never run."""

from __future__ import annotations

from mixup_hf.evaluation.experiment.runner import Job, Run

NAMES = ("news", "film", "sport")
TRAINING = {
    "max_steps": 3,
    "learning_rate": 0.02,
    "per_device_train_batch_size": 4,
    "use_cpu": True,
    "disable_tqdm": True,
}
METRICS = {name: 0.5 for name in ("macro_f1", "minority_recall", "ece", "loss", "brier")}


def made(job: Job, accuracy: float, **metrics: float) -> Run:
    right = round(20 * accuracy)
    correct = [True] * right + [False] * (20 - right)
    kept = METRICS | {"accuracy": accuracy, "seconds": 2.0, "mixed_rows": 8.0} | metrics
    return Run(job, kept, correct)
