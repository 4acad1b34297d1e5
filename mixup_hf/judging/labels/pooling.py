"""How predictions are pooled: weighted sums of log probabilities, and how sharp the result is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from mixup_hf.data.targets import MULTI_LABEL, REGRESSION, SINGLE_LABEL

FLOOR = 0.01  # probability that is spread evenly: an unseen class is unlikely, never impossible
MAX_WEIGHT = 4.0  # of a member
_TINY = 1e-7


def with_floor(probabilities: np.ndarray, problem_type: str) -> np.ndarray:
    """Probabilities (n, C) of which none is 0; numbers are returned as they are."""
    if problem_type == REGRESSION:
        return probabilities
    even = 1 / probabilities.shape[1] if problem_type == SINGLE_LABEL else 0.5
    mixed: np.ndarray = (1 - FLOOR) * probabilities + FLOOR * even
    return mixed


@dataclass(frozen=True)
class Scale:
    """The scale on which predictions are added, and the way back.

    Log probabilities for single-label rows, log odds for multi-label rows, the numbers themselves
    for regression. In all three the loss is convex in the weights of a sum.

    Attributes:
        problem_type: One of `PROBLEM_TYPES`.
    """

    problem_type: str

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        """Predictions (..., C) on the scale."""
        if self.problem_type == REGRESSION:
            return predictions
        clipped = np.clip(predictions, _TINY, 1 - _TINY)
        scores: np.ndarray = np.log(clipped)
        return scores if self.problem_type == SINGLE_LABEL else scores - np.log1p(-clipped)

    def predictions(self, scores: np.ndarray) -> np.ndarray:
        """The predictions (..., C) of scores."""
        link: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            SINGLE_LABEL: lambda each: softmax(each, axis=-1),
            MULTI_LABEL: expit,
            REGRESSION: lambda each: each,
        }
        return link[self.problem_type](scores)

    def loss(self, scores: np.ndarray, values: np.ndarray) -> float:
        """Mean loss of scores (n, C): negative log-likelihood, or half the squared error."""
        if self.problem_type == SINGLE_LABEL:
            return float(-(values * log_softmax(scores, axis=1)).sum(1).mean())
        if self.problem_type == MULTI_LABEL:
            return float((np.logaddexp(0, scores) - values * scores).sum(1).mean())
        return float(((scores - values) ** 2).sum(1).mean() / 2)

    def accuracy(self, predictions: np.ndarray, values: np.ndarray) -> float:
        """Share of right classes (multi-label: of right cells); R^2, at least 0, in regression."""
        if self.problem_type == SINGLE_LABEL:
            return float((predictions.argmax(1) == values.argmax(1)).mean())
        if self.problem_type == MULTI_LABEL:
            return float(((predictions > 0.5) == (values > 0.5)).mean())
        spread = ((values - values.mean(0)) ** 2).sum()
        return float(max(0.0, 1 - ((predictions - values) ** 2).sum() / max(spread, _TINY)))

    def skill(self, predictions: np.ndarray, values: np.ndarray) -> float:
        """How much better than chance predictions (n, C) are: 1 is perfect, 0 is chance.

        Every class counts alike, however rare: mean recall, as a share of the way from chance to 1.
        In multi-label classification the mean of that over classes, each told from its absence; in
        regression R^2, at least 0.
        """
        if self.problem_type == REGRESSION:
            return self.accuracy(predictions, values)
        if self.problem_type == SINGLE_LABEL:
            return _informed(predictions.argmax(1), values.argmax(1))
        columns = zip(predictions.T > 0.5, values.T > 0.5, strict=True)
        return float(np.mean([_informed(*column) for column in columns]))

    def confidence(self, predictions: np.ndarray) -> float:
        """Mean probability of what is predicted; 0 in regression."""
        if self.problem_type == REGRESSION or not len(predictions):
            return 0.0
        if self.problem_type == SINGLE_LABEL:
            return float(predictions.max(1).mean())
        return float(np.maximum(predictions, 1 - predictions).mean())


def _informed(predicted: np.ndarray, true: np.ndarray) -> float:
    """Mean recall of the classes that occur (n), scaled so that chance is 0; 0 for one class."""
    present = np.unique(true)
    if len(present) < 2:
        return 0.0
    recall = np.mean([(predicted[true == each] == each).mean() for each in present])
    return float((recall * len(present) - 1) / (len(present) - 1))


@dataclass(frozen=True)
class Temperatures:
    """What scores are divided by: the pooled ones, those of each guest, and those of the result.

    Attributes:
        own: Of the members with held-out predictions, pooled.
        guests: Of each member without them, by name.
        final: Of all together.
    """

    own: float
    guests: dict[str, float]
    final: float


def fit_weights(scale: Scale, scores: Sequence[np.ndarray], values: np.ndarray) -> np.ndarray:
    """The weight of each member (K), at least 0, that suits held-out rows best.

    Weights are drawn to 1 / K, as if by one row: ten rows say little, a thousand rows decide.

    Args:
        scale: The scale of the scores.
        scores: Scores (N, C) of each of K members for rows it has not seen.
        values: The labels (N, C).
    """
    members, count = len(scores), len(values)
    even = np.full(members, 1 / max(1, members))
    if not members or not count:
        return even
    stacked = np.stack(scores)
    if scale.problem_type == REGRESSION:  # one row counts the same, whatever the unit
        unit = max(float(values.std()), _TINY)
        stacked, values = stacked / unit, values / unit

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        pooled = np.tensordot(weights, stacked, 1)
        error = values - scale.predictions(pooled)
        away = weights - even
        slope = -(stacked * error).sum((1, 2)) / count + 2 * away / count
        return scale.loss(pooled, values) + float(away @ away) / count, slope

    bounds = [(0.0, MAX_WEIGHT)] * members
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # as for the heads
        found: np.ndarray = minimize(loss, even, jac=True, method="L-BFGS-B", bounds=bounds).x
    return found


def find_temperature(scale: Scale, scores: np.ndarray, target: float) -> float:
    """The smallest temperature, at least 1, at which mean confidence does not exceed `target`."""

    def is_soft(temperature: float) -> bool:
        return scale.confidence(scale.predictions(scores / temperature)) <= target

    low, high = 1.0, 1.0
    while not is_soft(high) and high < 1e4:
        low, high = high, high * 2
    for _ in range(40):
        if high - low < 1e-6:
            break
        middle = (low + high) / 2
        low, high = (low, middle) if is_soft(middle) else (middle, high)
    return high
