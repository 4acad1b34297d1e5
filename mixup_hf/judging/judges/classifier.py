"""A judge that is a linear classifier on embeddings, trained out of fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mixup_hf import errors
from mixup_hf.registry import register

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mixup_hf.judging.judges import JudgeInputs

_FEWEST_FOLDS = 3  # leaving out the folds of both parents leaves one


class ClassifierJudge:
    """Logistic regression on embeddings, trained without the folds of a sentence's parents.

    Args:
        embeddings: Embeddings of the training rows (N, D).
        targets: One-hot labels (N, C).
        num_folds: Largest number of folds; a class with fewer rows lowers it.
        seed: Seed of the assignment of rows to folds.

    Raises:
        InvalidInput: A class has fewer than three rows.
    """

    def __init__(
        self, embeddings: Tensor, targets: Tensor, *, num_folds: int = 5, seed: int = 0
    ) -> None:
        import numpy as np
        from sklearn.model_selection import StratifiedKFold

        self.embeddings = embeddings.numpy()
        self.classes = targets.argmax(1).numpy()
        self.num_labels = targets.shape[1]
        fewest = int(np.bincount(self.classes)[np.unique(self.classes)].min())
        if fewest < _FEWEST_FOLDS:
            raise errors.InvalidInput(
                f"`judges` = 'classifier' needs at least {_FEWEST_FOLDS} rows of each class, but "
                f"one has {fewest}. Use 'knn'."
            )
        folds = StratifiedKFold(min(num_folds, fewest), shuffle=True, random_state=seed)
        self.fold = np.empty(len(self.classes), np.int64)
        for number, (_, rows) in enumerate(folds.split(self.embeddings, self.classes)):
            self.fold[rows] = number
        self._models: dict[frozenset[int], Any] = {}

    def judge(self, texts: Sequence[str], embeddings: Tensor, parents: np.ndarray) -> Tensor:
        """As `Judge.judge`."""
        import torch

        from mixup_hf.mixing.neighbors import NOBODY

        result = torch.zeros(len(embeddings), self.num_labels)
        left_out = [frozenset(self.fold[row[row != NOBODY]].tolist()) for row in parents]
        for folds in set(left_out):
            here = torch.tensor([each == folds for each in left_out])
            result[here] = self._predict(folds, embeddings[here])
        return result

    def _predict(self, left_out: frozenset[int], embeddings: Tensor) -> Tensor:
        import torch

        if not left_out:  # no parents: average the models that judge training rows out of fold
            folds = range(int(self.fold.max()) + 1)
            return torch.stack([self._predict(frozenset([f]), embeddings) for f in folds]).mean(0)
        if left_out not in self._models:
            self._models[left_out] = self._fit(left_out)
        model = self._models[left_out]
        result = torch.zeros(len(embeddings), self.num_labels)
        probabilities = torch.from_numpy(model.predict_proba(embeddings.numpy())).float()
        result[:, torch.from_numpy(model.classes_)] = probabilities
        return result

    def _fit(self, left_out: Iterable[int]) -> Any:
        import numpy as np
        from sklearn.linear_model import LogisticRegression

        kept = ~np.isin(self.fold, list(left_out))
        if len(np.unique(self.classes[kept])) < 2:
            raise errors.InvalidInput(
                "`judges` = 'classifier' has fewer than two classes left to train on without the "
                "folds of the parents. Use 'knn', or weights that mix fewer parents."
            )
        # Unit-length embeddings need little shrinkage: C = 10 is near the optimum on most sets.
        model = LogisticRegression(C=10.0, max_iter=500)
        return model.fit(self.embeddings[kept], self.classes[kept])


@register("judge", "classifier", help="logistic regression on embeddings, trained out of fold")
def build(inputs: JudgeInputs) -> ClassifierJudge:
    """A linear classifier trained on the training rows."""
    return ClassifierJudge(inputs.embeddings, inputs.targets, seed=inputs.seed)
