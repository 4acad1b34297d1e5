"""The committee: members, how much each counts, and how sure all of them together may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.data.targets import REGRESSION, SINGLE_LABEL, Targets
from mixup_hf.data.text_pairs import are_pairs, join_sides, without_blanks
from mixup_hf.judging.labels.folds import assign_folds
from mixup_hf.judging.labels.pooling import (
    Scale,
    Temperatures,
    find_temperature,
    fit_weights,
    with_floor,
)
from mixup_hf.judging.labels.types import Labelled, Member

# Of a member without held-out predictions, and of all others together: above 1/2, because members
# that agree deserve more trust than each of them alone.
FIXED_WEIGHT = 0.8
NUM_FOLDS = 5


class Committee:
    """Labels texts by what they say. Made by `fit_committee`.

    Labels are a function of the training set, the members and the texts given to `calibrate`, if
    any: not of which texts were labelled before, so a resumed run gets the same ones.

    Args:
        members: The members by name. Those without held-out predictions have a fixed weight.
        texts: The training texts (N).
        targets: Their labels.
        seed: Seed of the folds by which the committee's own accuracy is estimated.

    Attributes:
        members: As given.
        weights: Each member's exponent. Those of members without held-out predictions are
            multiplied with predictions that have been softened first, and so are all the others
            together.
        accuracies: Each member's accuracy on rows it has not seen (of members that have such).
        accuracy: The committee's, its weights having been fitted without those rows. In
            multi-label classification: share of right cells; in regression: R^2.
        skill: How much better than chance it is on those rows, at most 1: see `Scale.skill`.
        names: The classes (C), in the order of all predictions.
    """

    def __init__(
        self, members: Mapping[str, Member], texts: Sequence[str], targets: Targets, seed: int = 0
    ) -> None:
        self.members = dict(members)
        self._texts, self._targets, self._seed = list(texts), targets, seed
        self._scale = Scale(targets.problem_type)
        self._num_labels = targets.values.shape[1]
        self.names = tuple(targets.names)
        held_out = {
            name: self._checked(name, member.held_out, len(texts))
            for name, member in self.members.items()
            if member.held_out is not None
        }
        self._guests = [name for name in self.members if name not in held_out]
        scores = [self._scale.scores(each) for each in held_out.values()]
        self.accuracies, self.accuracy, self.skill = self._measure(held_out, scores)
        values = targets.values.double().numpy()
        rows = self._informative()
        fitted = fit_weights(self._scale, [each[rows] for each in scores], values[rows])
        self.weights = dict(zip(held_out, fitted.tolist(), strict=True))
        self.weights |= dict.fromkeys(self._guests, FIXED_WEIGHT)
        guests = {name: self._vote(name, self._texts) for name in self._guests}
        self._temperatures = self._cooled(held_out | guests)

    @property
    def temperature(self) -> float:
        """What the scores of the result are divided by, at least 1."""
        return self._temperatures.final

    def label(self, texts: Sequence[str]) -> Labelled:
        """Soft labels of n texts, with each member's predictions."""
        if not len(texts):
            empty = torch.zeros(0, self._num_labels)
            return Labelled(empty, dict.fromkeys(self.members, empty))
        votes = {name: self._vote(name, texts) for name in self.members}
        scores = self._pool(votes, self._temperatures) / self._temperatures.final
        return Labelled(
            _tensor(self._scale.predictions(scores)),
            {name: _tensor(vote) for name, vote in votes.items()},
        )

    def predict_proba(self, texts: Sequence[Any]) -> np.ndarray:
        """Class probabilities of any texts, as classifiers of scikit-learn give them.

        Args:
            texts: N texts; pairs of texts where the training texts are pairs.

        Returns:
            (N, C), float32, in the order of `names`. Rows sum to 1; in multi-label classification
            each class has a probability of its own.

        Raises:
            InvalidInput: The committee predicts numbers; pairs where it was fitted on texts, or
                the other way round.
        """
        if self._targets.problem_type == REGRESSION:
            raise errors.InvalidInput(
                "`predict_proba` gives probabilities of classes, but this committee predicts "
                "numbers: they are in label(texts).labels."
            )
        read = join_sides("texts", texts)
        if read and are_pairs(read) != are_pairs(self._texts):
            kind = "pairs of texts" if are_pairs(self._texts) else "texts"
            raise errors.bad("texts", f"hold {kind}, as the training set does", texts[0])
        probabilities: np.ndarray = self.label(read).labels.numpy()
        return probabilities

    def calibrate(self, texts: Sequence[str]) -> Committee:
        """Soften the committee until it is no surer of `texts` than it is right on held-out rows.

        Before this call, held-out predictions for the real rows stand in, of which members that
        have seen all rows are usually surer. Give texts that are the same in every run on this
        training set: unlabelled ones, or the first sentences that were generated. A second call
        replaces the first.

        Args:
            texts: Texts nobody has labelled; some fifty or more.

        Returns:
            This committee.
        """
        errors.texts("texts", texts)
        self._temperatures = self._cooled({name: self._vote(name, texts) for name in self.members})
        return self

    def joined_by(self, name: str, member: Member) -> Committee:
        """A committee with one more member, or another one of that name; not calibrated yet."""
        return Committee({**self.members, name: member}, self._texts, self._targets, self._seed)

    def figures(self) -> dict[str, Any]:
        """What is known about the committee, for a file or a report.

        Returns:
            `members`: for each name its `weight`, and its `accuracy` on held-out rows or None;
            `accuracy` of all together, the number of `rows` that it was measured on, and the
            `temperature`. In regression, accuracies are R^2.
        """
        members = {
            name: {"weight": self.weights[name], "accuracy": self.accuracies.get(name)}
            for name in self.members
        }
        rows = len(self._informative())
        measured = {"accuracy": self.accuracy, "rows": rows, "temperature": self.temperature}
        return {"members": members, **measured}

    def describe(self) -> str:
        """One line: accuracy on held-out rows and weight of each member, and of all together."""
        parts = []
        for name in self.members:
            accuracy = self.accuracies.get(name)
            shown = "not held out" if accuracy is None else f"{accuracy:.2f}"
            parts.append(f"{name} {shown} (weight {self.weights[name]:.2f})")
        measure = "R^2" if self._targets.problem_type == REGRESSION else "accuracy"
        return (
            f"Committee of {len(parts)}, {measure} on held-out rows: {', '.join(parts)}; "
            f"together {self.accuracy:.2f}, temperature {self.temperature:.2f}"
        )

    def _informative(self) -> np.ndarray:
        """Rows (n) on which members can be compared: not those that are alone in their class.

        Held out, such a row is unknown to every member that learns from rows.
        """
        if self._targets.problem_type != SINGLE_LABEL:
            return np.arange(len(self._texts))
        sizes = self._targets.values.sum(0)[self._targets.values.argmax(1)]
        return np.flatnonzero(sizes.numpy() >= 2)

    def _measure(
        self, held_out: Mapping[str, np.ndarray], scores: Sequence[np.ndarray]
    ) -> tuple[dict[str, float], float, float]:
        """Accuracy on held-out rows, of each member and of the committee, and its skill."""
        rows = self._informative()
        if not len(rows) or not scores:
            return dict.fromkeys(held_out, 0.0), 0.0, 0.0
        values = self._targets.values.double().numpy()
        pooled = np.zeros((len(self._texts), self._num_labels))
        folds = assign_folds(self._targets, NUM_FOLDS, self._seed, self._texts)
        for fold in range(int(folds.max()) + 1):
            kept = rows[folds[rows] != fold]
            weights = fit_weights(self._scale, [each[kept] for each in scores], values[kept])
            out = folds == fold
            pooled[out] = np.tensordot(weights, np.stack([each[out] for each in scores]), 1)

        def accuracy(predictions: np.ndarray) -> float:
            return self._scale.accuracy(predictions[rows], values[rows])

        own = {name: accuracy(each) for name, each in held_out.items()}
        together = self._scale.predictions(pooled)
        return own, accuracy(together), self._scale.skill(together[rows], values[rows])

    def _vote(self, name: str, texts: Sequence[str]) -> np.ndarray:
        read = [without_blanks(text) for text in texts]
        return self._checked(name, self.members[name].predict(read), len(texts))

    def _checked(self, name: str, predictions: Tensor, count: int) -> np.ndarray:
        shape = (count, self._num_labels)
        if tuple(predictions.shape) != shape:
            rule = f"predict {shape[1]} classes for each of {count} texts"
            raise errors.bad(f"members[{name!r}]", rule, tuple(predictions.shape))
        return with_floor(predictions.double().cpu().numpy(), self._targets.problem_type)

    def _pool(self, votes: Mapping[str, np.ndarray], softened: Temperatures) -> np.ndarray:
        """Scores (n, C) of all members together."""
        scores = {name: self._scale.scores(vote) for name, vote in votes.items()}
        fitted = [name for name in self.members if name not in self._guests]
        parts = [scores[name] / softened.guests[name] for name in self._guests]
        if fitted:
            pooled = np.sum([self.weights[name] * scores[name] for name in fitted], axis=0)
            parts.append(pooled / softened.own)
        if len(parts) == 1:
            return np.asarray(parts[0])
        share = 1 / len(parts) if self._targets.problem_type == REGRESSION else FIXED_WEIGHT
        return np.asarray(share * np.sum(parts, axis=0))

    def _allowed_confidence(self) -> float:
        """How sure the committee may be on average: no surer than it is right."""
        count, right = len(self._informative()), self.accuracy
        # Ten right of ten do not mean always: as if one more row were right and one more wrong.
        cautious = min(right, (right * count + 1) / (count + 2))
        # Half as sure again as by chance, because few rows may all be wrong by accident.
        chance = 1 / self._num_labels if self._targets.problem_type == SINGLE_LABEL else 0.5
        return min(1.0, max(cautious, 1.5 * chance))

    def _cooled(self, votes: Mapping[str, np.ndarray]) -> Temperatures:
        """Temperatures at which these votes are as sure as they may be."""
        if self._targets.problem_type == REGRESSION:
            return Temperatures(1.0, dict.fromkeys(self._guests, 1.0), 1.0)
        target = self._allowed_confidence()
        guests = {
            name: find_temperature(self._scale, self._scale.scores(votes[name]), target)
            for name in self._guests
        }
        own = 1.0
        if guests and len(guests) < len(self.members):
            alone = {name: vote for name, vote in votes.items() if name not in guests}
            scores = np.sum(
                [self.weights[name] * self._scale.scores(vote) for name, vote in alone.items()], 0
            )
            own = find_temperature(self._scale, scores, target)
        pooled = self._pool(votes, Temperatures(own, guests, 1.0))
        final = find_temperature(self._scale, pooled, target)
        return Temperatures(own, guests, final)


def _tensor(predictions: np.ndarray) -> Tensor:
    return torch.from_numpy(predictions).float()
