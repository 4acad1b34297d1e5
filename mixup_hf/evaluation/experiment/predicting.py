"""Arms that predict the test rows themselves, without a model that a Trainer fine-tunes."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Protocol, runtime_checkable

import numpy as np

from mixup_hf import errors
from mixup_hf.data.tables import LabelledTexts
from mixup_hf.data.targets import SINGLE_LABEL, like, read_targets
from mixup_hf.finetuning.metrics import metrics_of, negative_log_likelihood

_SMALLEST = 1e-7  # a probability of 0 would make the negative log-likelihood infinite


@runtime_checkable
class Predicts(Protocol):
    """A classifier that has been fitted on the training rows."""

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Class probabilities (N, C) of texts (N)."""
        ...


def measure(
    predictor: Predicts, train: LabelledTexts, test: LabelledTexts, names: Sequence[str]
) -> tuple[dict[str, float], list[bool]]:
    """The metrics that a fine-tuned model gets, and whether each test row (N) is right.

    Raises:
        InvalidInput: The predictor returns something else than one row of C probabilities a text.
    """
    targets = read_targets(train.labels, None, names)
    labels = like(targets, test.labels).argmax(1).numpy()
    logs = _log_probabilities(predictor, test.texts, len(names))
    learned = _log_probabilities(predictor, train.texts, len(names)).argmax(1)
    trained_on = targets.values.argmax(1).numpy()
    counts_of = np.bincount(trained_on, minlength=len(names))
    found = metrics_of(SINGLE_LABEL, counts_of)(SimpleNamespace(predictions=logs, label_ids=labels))
    right = trained_on == learned
    counts = {"train_rows": len(train), "test_rows": len(test), "mixed_rows": 0, "steps": 0}
    loss = {"loss": negative_log_likelihood(logs, labels)}
    metrics = found | loss | counts | {"train_accuracy": float(right.mean())}
    return metrics, (logs.argmax(1) == labels).tolist()


def _log_probabilities(predictor: Predicts, texts: Sequence[str], num_labels: int) -> np.ndarray:
    found = np.asarray(predictor.predict(texts), dtype=np.float64)
    if found.shape != (len(texts), num_labels):
        rule = f"return probabilities of shape {(len(texts), num_labels)}"
        raise errors.bad("predict", rule, found.shape)
    clipped = np.clip(found, _SMALLEST, None)
    logs: np.ndarray = np.log(clipped / clipped.sum(1, keepdims=True))
    return logs
