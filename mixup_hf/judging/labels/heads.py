"""Linear heads on frozen features, by scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from mixup_hf.data.targets import MULTI_LABEL, REGRESSION, Targets
from mixup_hf.judging.labels.folds import assign_folds
from mixup_hf.judging.labels.pooling import Scale, with_floor

STRENGTHS = (1.0, 10.0, 100.0)  # inverse regularization, scikit-learn's C
_NUM_FOLDS = 5
Head: TypeAlias = Callable[[np.ndarray], np.ndarray]  # features (n, D) to predictions (n, C)


def fit_head(
    problem_type: str,
    features: np.ndarray,
    values: np.ndarray,
    strength: float,
    *,
    balanced: bool = False,
) -> Head:
    """Fit a linear head: multinomial, one per class (multi-label), or ridge (regression).

    Args:
        problem_type: One of `PROBLEM_TYPES`.
        features: (n, D).
        values: Labels (n, C); a class may have no row.
        strength: Inverse regularization.
        balanced: Where rows have one class each, all classes count the same.
    """
    if problem_type == REGRESSION:
        from sklearn.linear_model import Ridge

        ridge = Ridge(alpha=1 / strength).fit(features, values)
        return lambda each: ridge.predict(each).reshape(len(each), values.shape[1])
    if problem_type == MULTI_LABEL:
        columns = [_fit_logistic(features, column > 0.5, strength, 2) for column in values.T]
        return lambda each: np.stack([column(each)[:, 1] for column in columns], 1)
    return _fit_logistic(features, values.argmax(1), strength, values.shape[1], balanced)


def _fit_logistic(
    features: np.ndarray,
    classes: np.ndarray,
    strength: float,
    num_classes: int,
    balanced: bool = False,
) -> Head:
    """Logistic regression whose predictions have a column for every class."""
    present = np.unique(classes).astype(np.int64)
    if len(present) == 1:
        only = np.eye(num_classes)[present]
        return lambda each: np.repeat(only, len(each), 0)
    # Gradients are means over rows, so with many classes even those at the start are small.
    tolerance = 0.01 / (num_classes * features.shape[1] ** 0.5)
    model = _logistic(features, classes, balanced, C=strength, tol=tolerance)

    def predict(each: np.ndarray) -> np.ndarray:
        result = np.zeros((len(each), num_classes))
        result[:, present] = model.predict_proba(each)
        return result

    return predict


def fit_linear(
    features: np.ndarray,
    classes: np.ndarray,
    strength: float,
    num_classes: int,
    *,
    intercept: bool = True,
    balanced: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (C, D) and biases (C) of a multinomial logistic regression.

    A class without rows is as likely everywhere as the least likely one with rows is on average.

    Args:
        features: (n, D).
        classes: Their classes (n), at least two different ones.
        strength: Inverse regularization.
        num_classes: C.
        intercept: Whether there are biases; else they are 0.
        balanced: All classes count the same, whatever their rows.
    """
    model = _logistic(features, classes, balanced, C=strength, fit_intercept=intercept)
    coefficients, biases = model.coef_, np.broadcast_to(model.intercept_, len(model.coef_))
    if len(coefficients) == 1:  # two classes: the log odds of the second
        coefficients = np.stack([-coefficients[0] / 2, coefficients[0] / 2])
        biases = np.array([-biases[0] / 2, biases[0] / 2])
    weight = np.zeros((num_classes, features.shape[1]))
    bias = np.zeros(num_classes)
    if intercept:
        bias += (features @ coefficients.T + biases).mean(0).min()
    weight[model.classes_], bias[model.classes_] = coefficients, biases
    return weight, bias


def _logistic(features: np.ndarray, classes: np.ndarray, balanced: bool, **settings: Any) -> Any:
    """A fitted logistic regression of scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # thousands of tiny products, which threads only slow down
        model = LogisticRegression(max_iter=1000, **settings)
        if balanced:
            model.set_params(class_weight="balanced")
        return model.fit(features, classes)


def choose_strength(
    features: np.ndarray,
    targets: Targets,
    seed: int,
    *,
    balanced: bool = False,
    texts: Sequence[str] = (),
) -> float:
    """The one of `STRENGTHS` with the smallest loss on held-out rows."""
    values = targets.values.double().numpy()
    scale = Scale(targets.problem_type)
    folds = assign_folds(targets, _NUM_FOLDS, seed, texts)

    def loss(strength: float) -> float:
        losses = []
        for fold in range(int(folds.max()) + 1):
            kept, out = folds != fold, folds == fold
            head = fit_head(
                targets.problem_type, features[kept], values[kept], strength, balanced=balanced
            )
            predictions = with_floor(head(features[out]), targets.problem_type)
            losses.append(out.sum() * scale.loss(scale.scores(predictions), values[out]))
        return float(np.sum(losses))

    return min(STRENGTHS, key=loss)


class HeadLearner:
    """A member that is a linear head on features.

    Args:
        features: Features (N, D) of the training texts.
        targets: Their labels.
        read: Computes the features (n, D) of any texts.
        seed: Seed of the folds by which the strength of regularization is chosen.
        balanced: Where texts have one class each, all classes count the same.
        texts: The training texts (N); copies share a fold. Default: all differ.
    """

    max_folds = _NUM_FOLDS

    def __init__(
        self,
        features: np.ndarray,
        targets: Targets,
        read: Callable[[Any], np.ndarray],
        seed: int = 0,
        *,
        balanced: bool = False,
        texts: Sequence[str] = (),
    ) -> None:
        self.features, self.targets, self.read = features, targets, read
        self.balanced = balanced
        self.strength = choose_strength(features, targets, seed, balanced=balanced, texts=texts)

    def fit(self, rows: np.ndarray) -> Any:
        """As `Learner.fit`."""
        import torch

        values = self.targets.values.double().numpy()[rows]
        head = fit_head(
            self.targets.problem_type,
            self.features[rows],
            values,
            self.strength,
            balanced=self.balanced,
        )
        return lambda texts: torch.from_numpy(head(self.read(texts)))
