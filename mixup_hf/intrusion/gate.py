"""The gate: what happens to a generated row that something is wrong with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from mixup_hf import _checks
from mixup_hf.intrusion.events import COLLAPSE, DEGENERATE, Detector, Finding
from mixup_hf.intrusion.judges import JUDGES, ClassifierJudge, Judge, KnnJudge, LikelihoodJudge
from mixup_hf.records import Encodes, MixedExample, Redraw

Policy = Literal["keep", "drop", "resample", "relabel", "blend", "local", "weight"]
POLICIES: tuple[str, ...] = get_args(Policy)

# How a row is made anew: another partner and ratio, another ratio, a nearer partner.
_REDRAWN: dict[str, Redraw] = {"drop": "pair", "resample": "ratio", "local": "near"}
_NO_LABEL_HELPS = {COLLAPSE, DEGENERATE}


class Gate:
    """Judges generated rows and mends those with events. A count asked for stays the count.

    - `keep`: events are recorded, nothing else is done.
    - `drop`: another partner and another ratio, up to `max_redraws` times.
    - `resample`: the same parents in another ratio, up to `max_redraws` times.
    - `local`: a partner among the nearest rows, up to `max_redraws` times.
    - `relabel`: the label becomes what the judges say.
    - `blend`: the label moves `blend` of the way there.
    - `weight`: the row weighs in the loss what label and judges share of their mass.

    A sentence that copies a parent or is none at all (`collapse`, `degenerate`) is made anew under
    every policy but `keep`: no label mends it. Where the redraws are used up, the first parent's
    own text and label stand in (`mitigation="parent"`).

    Args:
        detector: Finds the events.
        encoder: Embeds generated sentences.
        policy: What is done.
        max_redraws: How often a row is made anew.
        blend: gamma of `blend`.
    """

    def __init__(
        self,
        detector: Detector,
        encoder: Encodes,
        *,
        policy: str = "drop",
        max_redraws: int = 4,
        blend: float = 0.5,
    ) -> None:
        _checks.one_of("intrusion", policy, POLICIES)
        _checks.at_least("max_redraws", max_redraws, 0)
        _checks.in_range("blend", blend, 0.0, 1.0)
        self.detector, self.encoder = detector, encoder
        self.policy, self.max_redraws, self.blend = policy, max_redraws, blend

    def review(
        self,
        rows: Sequence[MixedExample],
        redraw: Callable[[list[int], int, Redraw], list[MixedExample]],
    ) -> list[MixedExample]:
        """The rows as they may be trained on, each with what was found and done.

        Args:
            rows: Of one chunk.
            redraw: Makes the rows at given places of the chunk anew, for a given attempt.
        """
        passed, findings = list(rows), self._inspect(rows)
        first = [finding.events for finding in findings]
        for attempt in range(1, self.max_redraws + 1):
            again = [at for at, found in enumerate(findings) if self._is_redrawn(found)]
            if not again:
                break
            how = _REDRAWN.get(self.policy, "pair")
            made = redraw(again, attempt, how)
            for at, row, found in zip(again, made, self._inspect(made), strict=True):
                passed[at], findings[at] = replace(row, attempts=attempt + 1), found
        return [
            replace(self._mended(row, found), events=events, judges=found.judges)
            for row, found, events in zip(passed, findings, first, strict=True)
        ]

    def _inspect(self, rows: Sequence[MixedExample]) -> list[Finding]:
        return self.detector.inspect(rows, self.encoder.encode([row.text or "." for row in rows]))

    def _is_redrawn(self, found: Finding) -> bool:
        if self.policy == "keep":
            return False
        redrawn = self.policy in _REDRAWN or bool(_NO_LABEL_HELPS & set(found.events))
        return redrawn and bool(found.events)

    def _mended(self, row: MixedExample, found: Finding) -> MixedExample:
        if self.policy == "keep":
            return row
        if not found.events:
            how = "none" if row.attempts == 1 else f"redrawn:{_REDRAWN.get(self.policy, 'pair')}"
            return replace(row, mitigation=how)
        if self._is_redrawn(found):
            return self._parent(row)
        judged, label = found.judged, torch.tensor(row.label)
        if self.policy == "weight":
            shared = float(torch.minimum(label, judged).sum())
            return replace(row, mitigation="weighted", weight=round(shared, 4))
        share = 1.0 if self.policy == "relabel" else self.blend
        mixed = (1 - share) * label + share * judged
        name = "relabelled" if self.policy == "relabel" else "blended"
        return replace(row, mitigation=name, label=tuple((mixed / mixed.sum()).tolist()))

    def _parent(self, row: MixedExample) -> MixedExample:
        parent = row.parents[0]
        shares = (1.0, *(0.0 for _ in row.parents[1:]))
        label = tuple(self.detector.targets[parent].tolist())
        text = self.detector.texts[parent]
        return replace(
            row, text=text, label=label, lam=1.0, shares=shares, mitigation="parent", weight=1.0
        )


def build_gate(
    texts: Sequence[str],
    embeddings: Tensor,
    targets: Tensor,
    encoder: Encodes,
    *,
    judges: Sequence[str] = ("knn",),
    log_likelihood: Callable[[Sequence[str], Sequence[str]], Tensor] | None = None,
    label_names: Sequence[str] = (),
    policy: str = "drop",
    max_redraws: int = 4,
    rate: float = 0.05,
    seed: int = 0,
) -> Gate:
    """A gate for one training set, its thresholds calibrated on it.

    Args:
        texts: The training texts (N).
        embeddings: Theirs (N, D).
        targets: Their one-hot labels (N, C).
        encoder: Embeds generated sentences.
        judges: Names of `JUDGES`; several are averaged.
        log_likelihood: For the judge `llm`: `Inverter.label_log_likelihood`.
        label_names: For the judge `llm`.
        policy: As for `Gate`.
        max_redraws: As for `Gate`.
        rate: At which real rows shall trigger an event.
        seed: Of the classifier's folds.
    """
    made: dict[str, Judge] = {}
    for name in judges:
        _checks.one_of("judges", name, JUDGES)
        if name == "knn":
            made[name] = KnnJudge(embeddings, targets)
        elif name == "classifier":
            made[name] = ClassifierJudge(embeddings, targets, seed=seed)
        elif log_likelihood is None:
            raise ValueError("`judges` = 'llm' needs `log_likelihood` to ask.")
        else:
            made[name] = LikelihoodJudge(log_likelihood, label_names)
    detector = Detector(made, texts, embeddings, targets, rate=rate)
    return Gate(detector, encoder, policy=policy, max_redraws=max_redraws)
