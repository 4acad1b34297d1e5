"""The gate: what happens to a generated row that something is wrong with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.judging.events import COLLAPSE, DEGENERATE, LEAK, Detector, Finding
from mixup_hf.judging.judges import JUDGES, ClassifierJudge, Judge, KnnJudge, LikelihoodJudge
from mixup_hf.judging.leaks import LeakError, LeakGuard
from mixup_hf.types import Encodes, MixedExample, Redraw

Policy = Literal["keep", "drop", "resample", "relabel", "blend", "local", "weight"]
POLICIES: tuple[str, ...] = get_args(Policy)
LEAK_POLICIES = ("drop", "fail", "off")

# How a row is made anew: another partner and ratio, another ratio, a nearer partner.
_REDRAWN: dict[str, Redraw] = {"drop": "pair", "resample": "ratio", "local": "near"}
_NO_LABEL_HELPS = {COLLAPSE, DEGENERATE, LEAK}


class Inspects(Protocol):
    """Finds events: a `Detector`."""

    def inspect(self, rows: Sequence[MixedExample], embeddings: Tensor) -> list[Finding]:
        """What is wrong with each of `rows`, whose sentences have `embeddings` (n, D)."""
        ...


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
    every policy but `keep`: no label mends it. One that is nearly an evaluation text (`leak`) is
    made anew under every policy. Where the redraws are used up, the first parent's
    own text and label stand in (`mitigation="parent"`).

    Args:
        detector: Finds the events; None finds only leaks.
        texts: The training texts (N).
        targets: Their labels (N, C).
        encoder: Embeds generated sentences.
        policy: What is done.
        max_redraws: How often a row is made anew.
        blend: gamma of `blend`.
        guard: Finds leaks.
        fail_on_leak: Raise instead of making the row anew.

    Raises:
        LeakError: While reviewing, with `fail_on_leak`.
    """

    def __init__(
        self,
        detector: Inspects | None,
        texts: Sequence[str],
        targets: Tensor,
        encoder: Encodes,
        *,
        policy: str = "drop",
        max_redraws: int = 4,
        blend: float = 0.5,
        guard: LeakGuard | None = None,
        fail_on_leak: bool = False,
    ) -> None:
        errors.one_of("intrusion", policy, POLICIES)
        errors.at_least("max_redraws", max_redraws, 0)
        errors.in_range("blend", blend, 0.0, 1.0)
        self.detector, self.encoder = detector, encoder
        self.texts, self.targets = texts, targets
        self.guard, self.fail_on_leak = guard, fail_on_leak
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
        if self.detector is None:
            findings = [Finding((), {}, torch.tensor(row.label)) for row in rows]
        else:
            embeddings = self.encoder.encode([row.text or "." for row in rows])
            findings = self.detector.inspect(rows, embeddings)
        return [
            replace(found, events=(*found.events, LEAK)) if self._leaks(row) else found
            for row, found in zip(rows, findings, strict=True)
        ]

    def _leaks(self, row: MixedExample) -> bool:
        near = None if self.guard is None else self.guard.near(row.text)
        if near is not None and self.fail_on_leak:
            raise LeakError(
                f"A generated sentence is nearly an evaluation text: {row.text!r} and {near!r} "
                f"(parents {row.parents}). Set `leaks: drop` to make such rows anew."
            )
        return near is not None

    def _is_redrawn(self, found: Finding) -> bool:
        if LEAK in found.events:
            return True
        if self.policy == "keep":
            return False
        redrawn = self.policy in _REDRAWN or bool(_NO_LABEL_HELPS & set(found.events))
        return redrawn and bool(found.events)

    def _mended(self, row: MixedExample, found: Finding) -> MixedExample:
        if self.policy == "keep" and row.attempts == 1 and LEAK not in found.events:
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
        label = tuple(self.targets[parent].tolist())
        text = self.texts[parent]
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
    eval_texts: Sequence[str] = (),
    leaks: str = "drop",
    seed: int = 0,
) -> Gate | None:
    """A gate for one training set, its thresholds calibrated on it.

    Args:
        texts: The training texts (N).
        embeddings: Theirs (N, D).
        targets: Their one-hot labels (N, C).
        encoder: Embeds generated sentences.
        judges: Names of `JUDGES`; several are averaged.
        log_likelihood: For the judge `llm`: `Inverter.label_log_likelihood`.
        label_names: For the judge `llm`.
        policy: As for `Gate`, or `off`: nothing is judged.
        max_redraws: As for `Gate`.
        rate: At which real rows shall trigger an event.
        eval_texts: What the model is evaluated on, for the leak guard.
        leaks: `drop`, `fail` or `off`.
        seed: Of the classifier's folds.

    Returns:
        The gate; None where there is nothing to judge and nothing to guard.
    """
    errors.one_of("leaks", leaks, LEAK_POLICIES)
    guard = LeakGuard(eval_texts) if eval_texts and leaks != "off" else None
    if policy == "off" and guard is None:
        return None
    made: dict[str, Judge] = {}
    for name in judges if policy != "off" else ():
        errors.one_of("judges", name, JUDGES)
        if name == "knn":
            made[name] = KnnJudge(embeddings, targets)
        elif name == "classifier":
            made[name] = ClassifierJudge(embeddings, targets, seed=seed)
        elif log_likelihood is None:
            raise errors.InvalidInput("`judges` = 'llm' needs `log_likelihood` to ask.")
        else:
            made[name] = LikelihoodJudge(log_likelihood, label_names)
    off = policy == "off"
    return Gate(
        None if off else Detector(made, texts, embeddings, targets, rate=rate),
        texts,
        targets,
        encoder,
        policy="keep" if off else policy,
        max_redraws=max_redraws,
        guard=guard,
        fail_on_leak=leaks == "fail",
    )
