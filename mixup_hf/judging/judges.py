"""Judges: what class a generated sentence seems to be, by those who have not seen its parents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.mixing.neighbors import NOBODY, Neighbours

JUDGES = ("knn", "classifier", "llm")
_FEWEST_FOLDS = 3  # with the folds of both parents left out, one remains


class Judge(Protocol):
    """Says what classes sentences are."""

    def judge(self, texts: Sequence[str], embeddings: Tensor, parents: np.ndarray) -> Tensor:
        """Class probabilities (n, C), found without the parents of each sentence.

        Args:
            texts: The sentences (n).
            embeddings: Theirs (n, D).
            parents: Training rows left out for each (n, m); -1 leaves out none.
        """
        ...


class KnnJudge:
    """The classes of the nearest training rows, each counted by how near it is.

    Rows weigh `exp(-(d - d_min) / s)`, where d is the distance and s the median distance of the
    neighbours; one row's worth of the classes' overall shares keeps probabilities off 0.

    Args:
        embeddings: Of the training rows (N, D).
        targets: One-hot labels (N, C).
        num_neighbors: How many are asked.
    """

    def __init__(self, embeddings: Tensor, targets: Tensor, num_neighbors: int = 10) -> None:
        errors.at_least("num_neighbors", num_neighbors, 1)
        self.embeddings, self.targets = embeddings, targets
        self.num_neighbors = min(num_neighbors, max(1, len(embeddings) - 2))
        self.prior = targets.mean(0)
        self._search = Neighbours(embeddings)

    def judge(self, texts: Sequence[str], embeddings: Tensor, parents: np.ndarray) -> Tensor:
        """As `Judge.judge`."""
        near = self._search.search(embeddings, self.num_neighbors + parents.shape[1])
        is_parent = (near[:, :, None] == parents[:, None, :]).any(axis=2)
        known = torch.from_numpy((near != NOBODY) & ~is_parent)
        # Of those left, the nearest `num_neighbors`: one may have fewer parents among them.
        known &= known.cumsum(1) <= self.num_neighbors
        rows = torch.from_numpy(np.maximum(near, 0))
        distance = (self.embeddings[rows] - embeddings[:, None]).norm(dim=-1)
        distance = distance.masked_fill(~known, torch.inf)
        nearest = distance.min(1, keepdim=True).values
        scale = distance.masked_fill(~known, torch.nan).nanmedian(1, keepdim=True).values
        weight = torch.exp((nearest - distance) / scale.clamp_min(1e-6)).nan_to_num(0.0)
        votes = (weight[..., None] * self.targets[rows]).sum(1) + self.prior
        return votes / votes.sum(1, keepdim=True)


class ClassifierJudge:
    """Logistic regression on embeddings, trained without the folds of a sentence's parents.

    Args:
        embeddings: Of the training rows (N, D).
        targets: One-hot labels (N, C).
        num_folds: At most; a class of fewer rows lowers it.
        seed: Which row is in which fold.

    Raises:
        ValueError: A class has fewer than three rows.
    """

    def __init__(
        self, embeddings: Tensor, targets: Tensor, *, num_folds: int = 5, seed: int = 0
    ) -> None:
        from sklearn.model_selection import StratifiedKFold

        self.embeddings = embeddings.numpy()
        self.classes = targets.argmax(1).numpy()
        self.num_labels = targets.shape[1]
        fewest = int(np.bincount(self.classes)[np.unique(self.classes)].min())
        if fewest < _FEWEST_FOLDS:
            raise errors.InvalidInput(
                f"`judges` = 'classifier' needs at least {_FEWEST_FOLDS} rows of each class, but "
                f"one has {fewest}. Take 'knn'."
            )
        folds = StratifiedKFold(min(num_folds, fewest), shuffle=True, random_state=seed)
        self.fold = np.empty(len(self.classes), np.int64)
        for number, (_, rows) in enumerate(folds.split(self.embeddings, self.classes)):
            self.fold[rows] = number
        self._models: dict[frozenset[int], Any] = {}

    def judge(self, texts: Sequence[str], embeddings: Tensor, parents: np.ndarray) -> Tensor:
        """As `Judge.judge`."""
        result = torch.zeros(len(embeddings), self.num_labels)
        without = [frozenset(self.fold[row[row != NOBODY]].tolist()) for row in parents]
        for folds in set(without):
            here = torch.tensor([each == folds for each in without])
            result[here] = self._predict(folds, embeddings[here])
        return result

    def _predict(self, folds: frozenset[int], embeddings: Tensor) -> Tensor:
        if not folds:  # no parents: as out of fold as a training row is judged
            each = [
                self._predict(frozenset([fold]), embeddings) for fold in range(self.fold.max() + 1)
            ]
            return torch.stack(each).mean(0)
        if folds not in self._models:
            self._models[folds] = self._fit(folds)
        model = self._models[folds]
        result = torch.zeros(len(embeddings), self.num_labels)
        probabilities = torch.from_numpy(model.predict_proba(embeddings.numpy())).float()
        result[:, torch.from_numpy(model.classes_)] = probabilities
        return result

    def _fit(self, folds: Iterable[int]) -> Any:
        from sklearn.linear_model import LogisticRegression

        kept = ~np.isin(self.fold, list(folds))
        if len(np.unique(self.classes[kept])) < 2:
            raise errors.InvalidInput(
                "`judges` = 'classifier' has no two classes left without the folds of the parents. "
                "Take 'knn', or weights of fewer parents."
            )
        # Embeddings of unit length want little shrinking: C = 10 is near the best for most sets.
        model = LogisticRegression(C=10.0, max_iter=500)
        return model.fit(self.embeddings[kept], self.classes[kept])


class LikelihoodJudge:
    """The class whose name the inverter's own LLM finds likeliest after the sentence.

    A name's mean log-likelihood per token, less what it is after no sentence at all: common names
    are not preferred. The LLM has not been trained on the labels, so every row is out of fold.

    Args:
        log_likelihood: Mean log-likelihood per token (n, C) of each name after each text.
        names: The classes' names.
    """

    def __init__(
        self, log_likelihood: Callable[[Sequence[str], Sequence[str]], Tensor], names: Sequence[str]
    ) -> None:
        self.log_likelihood = log_likelihood
        self.names = list(names)
        self._after_nothing: Tensor | None = None

    def judge(self, texts: Sequence[str], embeddings: Tensor, parents: np.ndarray) -> Tensor:
        """As `Judge.judge`."""
        if self._after_nothing is None:
            self._after_nothing = self.log_likelihood(["..."], self.names)
        scores: Tensor = self.log_likelihood(texts, self.names) - self._after_nothing
        return scores.softmax(-1)
