"""Events: what can be wrong with a generated sentence, and from where on it counts as wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors, runtime
from mixup_hf.judging.judges import Judge
from mixup_hf.types import MixedExample

THIRD_CLASS, CONFLICT, COLLISION = "third_class", "conflict", "collision"
COLLAPSE, DEGENERATE, LEAK = "collapse", "degenerate", "leak"
EVENTS = (THIRD_CLASS, CONFLICT, COLLISION, COLLAPSE, DEGENERATE, LEAK)

_FEWEST_ROWS = 40
_MIDDLE = (0.2, 0.8)
_COPY = 0.9
_BLOCK = 65_536
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Thresholds:
    """From where on a score is an event; the defaults are for too few rows to calibrate on.

    Attributes:
        third_class: Most probability of a class that is no parent's.
        conflict: Most nats of `KL(label || judged)`; 2.3 is a judged probability of 0.1.
        collision: Least distance to a real row of a class that is no parent's.
        rate: At which real rows trigger one of them; None when not calibrated.
    """

    third_class: float = 0.8
    conflict: float = 2.3
    collision: float = 0.0
    rate: float | None = None


@dataclass(frozen=True)
class Finding:
    """What was found of one sentence.

    Attributes:
        events: Names of `EVENTS`, none of them for a good sentence.
        judges: Each judge's class probabilities (C,).
        judged: Their mean (C,).
    """

    events: tuple[str, ...]
    judges: dict[str, tuple[float, ...]]
    judged: Tensor


class Detector:
    """Finds events in generated rows.

    Args:
        judges: By name.
        texts: The training texts (N).
        embeddings: Theirs (N, D).
        targets: Their one-hot labels (N, C).
        thresholds: Default: `calibrate` on the training rows.
        rate: At which real rows shall trigger, for that calibration.
    """

    def __init__(
        self,
        judges: Mapping[str, Judge],
        texts: Sequence[str],
        embeddings: Tensor,
        targets: Tensor,
        *,
        thresholds: Thresholds | None = None,
        rate: float = 0.05,
    ) -> None:
        if not judges:
            raise errors.bad("judges", "name at least one judge", judges)
        self.judges = dict(judges)
        self.texts, self.embeddings, self.targets = list(texts), embeddings, targets
        self.classes = targets.argmax(1)
        self.thresholds = thresholds or self._calibrated(rate)

    def inspect(self, rows: Sequence[MixedExample], embeddings: Tensor) -> list[Finding]:
        """What is wrong with each of `rows`, whose sentences have `embeddings` (n, D)."""
        parents = np.array([row.parents for row in rows])
        opinions = self.opinions([row.text for row in rows], embeddings, parents)
        judged = torch.stack(list(opinions.values())).mean(0)
        labels = torch.tensor([row.label for row in rows])
        scores = self.scores(judged, labels, embeddings, self.classes[torch.from_numpy(parents)])
        found = self.triggered(scores)
        findings = []
        for at, row in enumerate(rows):
            events = [name for name, hits in found.items() if bool(hits[at])]
            events += [COLLAPSE] * self._is_copy(row) + [DEGENERATE] * is_degenerate(row.text)
            each = {name: _rounded(opinion[at]) for name, opinion in opinions.items()}
            findings.append(Finding(tuple(events), each, judged[at]))
        return findings

    def triggered(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which rows (n,) have which of the calibrated events, from `scores`."""
        limits = self.thresholds
        return {
            THIRD_CLASS: scores[THIRD_CLASS] > limits.third_class,
            CONFLICT: scores[CONFLICT] > limits.conflict,
            COLLISION: -scores[COLLISION] < limits.collision,
        }

    def opinions(
        self, texts: Sequence[str], embeddings: Tensor, parents: np.ndarray
    ) -> dict[str, Tensor]:
        """Each judge's class probabilities (n, C)."""
        return {
            name: judge.judge(texts, embeddings, parents) for name, judge in self.judges.items()
        }

    def scores(
        self, judged: Tensor, labels: Tensor, embeddings: Tensor, own: Tensor
    ) -> dict[str, Tensor]:
        """How strongly each calibrated event speaks (n,); more is worse.

        Args:
            judged: Class probabilities (n, C).
            labels: Soft labels (n, C).
            embeddings: Of the sentences (n, D).
            own: Classes of the parents (n, m).
        """
        likeliest = judged.max(1)
        third = ~(likeliest.indices[:, None] == own).any(1)
        log_ratio = labels.clamp_min(1e-12).log() - judged.clamp_min(1e-12).log()
        return {
            THIRD_CLASS: torch.where(third, likeliest.values, 0.0),
            CONFLICT: (labels * log_ratio).sum(1),
            COLLISION: -self._distance_to_others(embeddings, own),
        }

    def real_scores(self) -> dict[str, Tensor]:
        """The scores (N,) of the training rows, each judged without itself."""
        rows = np.arange(len(self.texts))[:, None]
        opinions = self.opinions(self.texts, self.embeddings, rows)
        judged = torch.stack(list(opinions.values())).mean(0)
        return self.scores(judged, self.targets, self.embeddings, self.classes[:, None])

    def _calibrated(self, rate: float) -> Thresholds:
        if len(self.texts) < _FEWEST_ROWS:
            runtime.warn(
                f"{len(self.texts)} training rows are too few to calibrate intrusion judges on "
                f"({_FEWEST_ROWS} are needed): stated defaults are used, {Thresholds()}."
            )
            return Thresholds()
        return calibrate(self.real_scores(), rate)

    def _distance_to_others(self, embeddings: Tensor, own: Tensor) -> Tensor:
        """Distance (n,) to the nearest training row of a class that is no parent's."""
        nearest = torch.full((len(embeddings),), torch.inf)
        for start in range(0, len(self.embeddings), _BLOCK):
            block = slice(start, start + _BLOCK)
            distance = torch.cdist(embeddings, self.embeddings[block])
            same = (self.classes[block][None, :, None] == own[:, None, :]).any(-1)
            nearest = torch.minimum(nearest, distance.masked_fill(same, torch.inf).min(1).values)
        return nearest

    def _is_copy(self, row: MixedExample) -> bool:
        """Whether the sentence is next to a parent's, though the ratio is in the middle."""
        if not _MIDDLE[0] <= max(row.shares) <= _MIDDLE[1]:
            return False
        words = _WORD.findall(row.text.lower())
        return any(
            SequenceMatcher(None, words, _WORD.findall(self.texts[parent].lower())).ratio() >= _COPY
            for parent in row.parents
        )


def calibrate(scores: Mapping[str, Tensor], rate: float) -> Thresholds:
    """Thresholds that real rows trigger at a rate.

    Every event gets the same share of the rows, and that share is chosen so that the rows which
    trigger any of them are at most `rate` of all.

    Args:
        scores: Of real rows, out of fold, by event (N,).
        rate: In (0, 1).
    """
    errors.positive("intrusion_rate", rate)
    errors.in_range("intrusion_rate", rate, 0.0, 0.5)
    values = {name: score.double().numpy() for name, score in scores.items()}
    low, high = 0.0, rate
    for _ in range(40):
        middle = (low + high) / 2
        fired = np.zeros(len(next(iter(values.values()))), bool)
        for score in values.values():
            fired |= score > _quantile(score, middle)
        low, high = (middle, high) if fired.mean() <= rate else (low, middle)
    third, conflict, collision = (
        _quantile(values[name], low) for name in (THIRD_CLASS, CONFLICT, COLLISION)
    )
    return Thresholds(third, conflict, -collision, rate)


def _quantile(scores: np.ndarray, share: float) -> float:
    """The value that at most `share` of the scores are above."""
    return float(np.quantile(scores, 1 - share, method="higher"))


def is_degenerate(text: str) -> bool:
    """Whether a text is no sentence: without words, or the same few over and over."""
    words = _WORD.findall(text.lower())
    if not words:
        return True
    if len(words) < 6:
        return len(words) >= 4 and len(set(words)) == 1
    pairs = Counter(zip(words, words[1:], strict=False))
    return max(pairs.values()) >= 3 and len(set(words)) < len(words) / 2


def _rounded(probabilities: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in probabilities.tolist())
