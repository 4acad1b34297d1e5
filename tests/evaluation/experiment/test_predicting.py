"""Arms that predict the test rows themselves are measured as fine-tuned models are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixup_hf.data.tables import LabelledTexts
from mixup_hf.evaluation.experiment.predicting import measure

NAMES = ["1", "2", "3", "other"]
TRAIN = LabelledTexts(["a", "b", "c", "d"], NAMES)


class Perfect:
    """Knows every row."""

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities (N, 4)."""
        return np.eye(4)[["abcd".index(text) for text in texts]]


def test_test_labels_that_look_like_numbers_are_names_if_those_of_training_rows_are() -> None:
    """Without a row of class `other`, a csv file of test rows is read as whole numbers."""
    metrics, right = measure(Perfect(), TRAIN, LabelledTexts(["a", "b", "c"], [1, 2, 3]), NAMES)
    assert metrics["accuracy"] == metrics["train_accuracy"] == 1.0
    assert right == [True] * 3
