"""Events: what can be wrong with a generated sentence."""

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
from mixup_hf.judging.thresholds import (
    COLLISION,
    CONFLICT,
    THIRD_CLASS,
    Thresholds,
    calibrate,
    rare_limits,
)
from mixup_hf.types import MixedExample

COLLAPSE, DEGENERATE, LEAK = "collapse", "degenerate", "leak"
SECOND_SENTENCE, LOOP, UNFINISHED = "second_sentence", "loop", "unfinished"
OTHER_KIND, NOVEL_NAME = "other_kind", "novel_name"
# What `form` and `novel_names` look for.
FORM_EVENTS = (SECOND_SENTENCE, LOOP, UNFINISHED, OTHER_KIND, NOVEL_NAME)
EVENTS = (THIRD_CLASS, CONFLICT, COLLISION, COLLAPSE, DEGENERATE, LEAK, *FORM_EVENTS)

CALIBRATION_ROWS = 4096  # drawn from larger training sets: cost grows like N, not like N squared

_FEWEST_ROWS = 40
_MIDDLE = (0.2, 0.8)
_COPY = 0.9
# Of the training rows and of the sentences compared with them, how many at a time: distances for
# one pair of blocks take 64 MiB.
_BLOCK, _QUERIES = 65_536, 256
_SAMPLE = 31  # names the stream of random numbers; part of its key
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Finding:
    """The result of inspecting one sentence.

    Attributes:
        events: Names from `EVENTS`; empty for a good sentence.
        judges: Each judge's class probabilities (C,).
        judged: Their mean (C,).
    """

    events: tuple[str, ...]
    judges: dict[str, tuple[float, ...]]
    judged: Tensor


class Detector:
    """Finds events in generated rows.

    Args:
        judges: The judges by name.
        texts: The training texts (N).
        embeddings: Their embeddings (N, D).
        targets: Their one-hot labels (N, C).
        thresholds: Default: calibrated on the training rows, or on a sample of
            `CALIBRATION_ROWS` of them where there are more.
        rate: Share of real rows that may trigger an event, for the calibration.
        seed: Seed of that sample.
        compared: Training rows (n,) among which collisions are looked for. Default: all.
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
        seed: int = 0,
        compared: np.ndarray | None = None,
    ) -> None:
        if not judges:
            raise errors.bad("judges", "name at least one judge", judges)
        self.judges = dict(judges)
        self.texts, self.embeddings, self.targets = list(texts), embeddings, targets
        self.classes = targets.argmax(1)
        self._compared = self.embeddings, self.classes
        if compared is not None and len(compared) < len(self.texts):
            at = torch.from_numpy(compared)
            self._compared = self.embeddings[at], self.classes[at]
        self._rare: dict[str, Tensor] = {}  # limits of rare classes (C,), by event
        self.thresholds = thresholds or self._calibrated(rate, seed)

    def inspect(self, rows: Sequence[MixedExample], embeddings: Tensor) -> list[Finding]:
        """What is wrong with each of `rows`, whose sentences have `embeddings` (n, D)."""
        parents = np.array([row.parents for row in rows])
        opinions = self.opinions([row.text for row in rows], embeddings, parents)
        judged = torch.stack(list(opinions.values())).mean(0)
        labels = torch.tensor([row.label for row in rows])
        own = self.classes[torch.from_numpy(parents)]
        found = self.triggered(self.scores(judged, labels, embeddings, own), own)
        findings = []
        for at, row in enumerate(rows):
            events = [name for name, hits in found.items() if bool(hits[at])]
            events += text_events(row, [self.texts[parent] for parent in row.parents])
            each = {name: _rounded(opinion[at]) for name, opinion in opinions.items()}
            findings.append(Finding(tuple(events), each, judged[at]))
        return findings

    def triggered(self, scores: Mapping[str, Tensor], own: Tensor) -> dict[str, Tensor]:
        """Which rows (n,) have each of the calibrated events.

        Args:
            scores: Of the rows, as from `scores`.
            own: Classes of their parents (n, m).
        """
        found = {}
        for name, limit in self.thresholds.by_event().items():
            limits = torch.full((len(own),), limit, dtype=torch.double)
            if self._rare:
                limits = torch.maximum(limits, self._rare[name][own].amax(1))
            found[name] = scores[name] > limits
        return found

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
        """The score of each calibrated event (n,); larger is worse.

        Args:
            judged: Class probabilities (n, C).
            labels: Soft labels (n, C).
            embeddings: Embeddings of the sentences (n, D).
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

    def real_scores(self, rows: np.ndarray | None = None) -> dict[str, Tensor]:
        """The scores (n,) of training rows, each judged without itself.

        Args:
            rows: Numbers of the rows (n,). Default: all.
        """
        rows = np.arange(len(self.texts)) if rows is None else rows
        runs = [self._scores_of(rows[at : at + _QUERIES]) for at in range(0, len(rows), _QUERIES)]
        return {name: torch.cat([run[name] for run in runs]) for name in runs[0]}

    def _scores_of(self, rows: np.ndarray) -> dict[str, Tensor]:
        texts = [self.texts[row] for row in rows]
        at = torch.from_numpy(rows)
        opinions = self.opinions(texts, self.embeddings[at], rows[:, None])
        judged = torch.stack(list(opinions.values())).mean(0)
        return self.scores(judged, self.targets[at], self.embeddings[at], self.classes[at, None])

    def _calibrated(self, rate: float, seed: int) -> Thresholds:
        count = len(self.texts)
        if count < _FEWEST_ROWS:
            runtime.warn(
                f"{count} training rows are too few to calibrate the intrusion judges "
                f"({_FEWEST_ROWS} are needed): fixed thresholds are used, {Thresholds()}."
            )
            return Thresholds()
        if count <= CALIBRATION_ROWS:
            return self._with_rare(np.arange(count), rate)
        runtime.log(
            f"The intrusion thresholds are calibrated on {CALIBRATION_ROWS:,} of {count:,} "
            f"training rows, drawn with seed {seed}."
        )
        drawn = runtime.counter_rng(seed, _SAMPLE).choice(count, CALIBRATION_ROWS, replace=False)
        return self._with_rare(np.sort(drawn), rate)

    def _with_rare(self, rows: np.ndarray, rate: float) -> Thresholds:
        scores = self.real_scores(rows)
        self._rare = rare_limits(scores, self.classes[rows], self.targets.shape[1], rate)
        return calibrate(scores, rate)

    def _distance_to_others(self, embeddings: Tensor, own: Tensor) -> Tensor:
        """Distance (n,) to the nearest training row of a class that no parent has."""
        runs = zip(embeddings.split(_QUERIES), own.split(_QUERIES), strict=True)
        return torch.cat([self._nearest_other(*run) for run in runs])

    def _nearest_other(self, embeddings: Tensor, own: Tensor) -> Tensor:
        nearest = torch.full((len(embeddings),), torch.inf)
        others, labels = self._compared
        for start in range(0, len(others), _BLOCK):
            block = slice(start, start + _BLOCK)
            distance = torch.cdist(embeddings, others[block])
            for classes in own.T:  # a mask for each parent: all at once would be as large again
                same = labels[block][None] == classes[:, None]
                distance.masked_fill_(same, torch.inf)
            nearest = torch.minimum(nearest, distance.min(1).values)
        return nearest


def text_events(row: MixedExample, parents: Sequence[str]) -> tuple[str, ...]:
    """The events of a row that its text alone shows, whatever its label: collapse and degenerate.

    Args:
        row: A generated row.
        parents: The texts of its parents.
    """
    return (COLLAPSE,) * _is_copy(row, parents) + (DEGENERATE,) * is_degenerate(row.text)


def _is_copy(row: MixedExample, parents: Sequence[str]) -> bool:
    """Whether the sentence nearly repeats a parent although both have a real share in it."""
    if not _MIDDLE[0] <= max(row.shares) <= _MIDDLE[1]:
        return False
    words = _WORD.findall(row.text.lower())
    return any(
        SequenceMatcher(None, words, _WORD.findall(parent.lower())).ratio() >= _COPY
        for parent in parents
    )


def is_degenerate(text: str) -> bool:
    """Whether a text is not a sentence: it has no words, or repeats the same few."""
    words = _WORD.findall(text.lower())
    if not words:
        return True
    if len(words) < 6:
        return len(words) >= 4 and len(set(words)) == 1
    pairs = Counter(zip(words, words[1:], strict=False))
    return max(pairs.values()) >= 3 and len(set(words)) < len(words) / 2


def _rounded(probabilities: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in probabilities.tolist())
