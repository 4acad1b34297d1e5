"""What happens to a generated row when the judges find something wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, get_args

import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.config import IntrusionPolicy, LeakPolicy
from mixup_hf.data.text_pairs import without_blanks
from mixup_hf.judging.events import (
    COLLAPSE,
    DEGENERATE,
    FORM_EVENTS,
    LEAK,
    NOVEL_NAME,
    SECOND_SENTENCE,
    Detector,
    Finding,
    text_events,
)
from mixup_hf.judging.form import TextCheck
from mixup_hf.judging.judges import JudgeInputs, build_judge
from mixup_hf.judging.leaks import LeakError, LeakGuard
from mixup_hf.judging.sampling import SampledJudge, sample_of
from mixup_hf.types import Encodes, MixedExample, Redraw

POLICIES: tuple[str, ...] = get_args(IntrusionPolicy)
LEAK_POLICIES: tuple[str, ...] = get_args(LeakPolicy)

# How a row is regenerated: new partner and ratio, same parents in a new ratio, nearer partner.
_REDRAWN: dict[str, Redraw] = {"drop": "pair", "resample": "ratio", "local": "near"}
# Events that a row is regenerated for under every policy.
_ALWAYS = {LEAK, NOVEL_NAME}
# Events that no change of the label can mend.
_BAD_TEXT = {COLLAPSE, DEGENERATE, LEAK, *FORM_EVENTS}
CUT = "cut"


class Inspects(Protocol):
    """Finds events: a `Detector`."""

    def inspect(self, rows: Sequence[MixedExample], embeddings: Tensor) -> list[Finding]:
        """What is wrong with each of `rows`, whose sentences have `embeddings` (n, D)."""
        ...


class Gate:
    """Reviews generated rows and applies a policy to those with events.

    As many rows come out as went in.

    - `keep`: record the events, change nothing.
    - `drop`: regenerate with another partner and ratio, up to `max_redraws` times.
    - `resample`: regenerate from the same parents in another ratio, up to `max_redraws` times.
    - `local`: regenerate with a partner from the nearest rows, up to `max_redraws` times.
    - `relabel`: replace the label by the judges' probabilities.
    - `blend`: move the label a share `blend` of the way toward the judges' probabilities.
    - `weight`: weight the row's loss by the overlap of label and judges' probabilities.

    A sentence that copies a parent (`collapse`) or is not a sentence (`degenerate`) is regenerated
    under every policy except `keep`, since no label fits it. A near-duplicate of an evaluation
    text (`leak`) is regenerated under every policy. When all redraws fail, the first parent's own
    text and label are used (`mitigation="parent"`).

    With a `check`, a text is first given the form of the training texts. If sentences are cut off
    for that, `events` says so (`second_sentence`), and `mitigation` is "cut" where nothing else was
    done. A row whose form is still wrong is regenerated under every policy except `keep`; one with
    names that no parent has (`novel_name`), where they are forbidden, under every policy.

    Args:
        detector: Finds the events; None asks no judges.
        texts: The training texts (N).
        targets: Their labels (N, C).
        encoder: Embeds generated sentences.
        policy: One of `POLICIES`.
        max_redraws: How often a row is regenerated at most.
        blend: Step size of the policy `blend`, in [0, 1].
        guard: Finds leaks; None where there are no evaluation texts.
        fail_on_leak: Raise instead of regenerating the row.
        check_texts: Without a detector, find `collapse` and `degenerate` all the same: what no
            label can mend. Otherwise only leaks are looked for.
        unlabeled: Unlabelled texts (M) that may be parents; without a detector.
        check: Gives texts the form of the training texts, and finds what is wrong with it.

    Raises:
        LeakError: During a review, with `fail_on_leak`.
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
        check_texts: bool = False,
        unlabeled: Sequence[str] = (),
        check: TextCheck | None = None,
    ) -> None:
        errors.one_of("intrusion", policy, POLICIES)
        errors.at_least("max_redraws", max_redraws, 0)
        errors.in_range("blend", blend, 0.0, 1.0)
        self.detector, self.encoder = detector, encoder
        self.texts, self.targets = texts, targets
        self.guard, self.fail_on_leak = guard, fail_on_leak
        self.check_texts, self.unlabeled, self.check = check_texts, unlabeled, check
        self.policy, self.max_redraws, self.blend = policy, max_redraws, blend

    def review(
        self,
        rows: Sequence[MixedExample],
        redraw: Callable[[list[int], int, Redraw], list[MixedExample]],
    ) -> list[MixedExample]:
        """The rows as they may be trained on, each with what was found and what was done.

        Args:
            rows: The rows of one chunk.
            redraw: Regenerates the rows at the given places of the chunk, for the given attempt.
        """
        passed, cut = self._repaired(rows)
        findings = self._inspect(passed)
        lost = (SECOND_SENTENCE,)
        first = [lost * (at in cut) + found.events for at, found in enumerate(findings)]
        for attempt in range(1, self.max_redraws + 1):
            again = [at for at, found in enumerate(findings) if self._is_redrawn(found)]
            if not again:
                break
            made, _ = self._repaired(redraw(again, attempt, _REDRAWN.get(self.policy, "pair")))
            for at, row, found in zip(again, made, self._inspect(made), strict=True):
                passed[at], findings[at] = replace(row, attempts=attempt + 1), found
        mended = [
            self._mended(replace(row, events=events, judges=found.judges), found)
            for row, found, events in zip(passed, findings, first, strict=True)
        ]
        return [
            replace(row, mitigation=CUT) if at in cut and row.mitigation == "none" else row
            for at, row in enumerate(mended)
        ]

    def _repaired(self, rows: Sequence[MixedExample]) -> tuple[list[MixedExample], set[int]]:
        """The rows in the form of the training texts, and which of them have lost a sentence."""
        if self.check is None:
            return list(rows), set()
        found = [self.check.repaired(row.text) for row in rows]
        fitting = [replace(row, text=text) for row, (text, _) in zip(rows, found, strict=True)]
        return fitting, {at for at, (_, is_cut) in enumerate(found) if is_cut}

    def _inspect(self, rows: Sequence[MixedExample]) -> list[Finding]:
        if self.detector is None:
            findings = [Finding(self._of_text(row), {}, torch.tensor(row.label)) for row in rows]
        else:
            embeddings = self.encoder.encode([without_blanks(row.text) for row in rows])
            findings = self.detector.inspect(rows, embeddings)
        return [
            replace(found, events=(*found.events, *self._in_every_policy(row)))
            for row, found in zip(rows, findings, strict=True)
        ]

    def _in_every_policy(self, row: MixedExample) -> tuple[str, ...]:
        form = () if self.check is None else self.check.events(row)
        return (*form, LEAK) if self._leaks(row) else form

    def _of_text(self, row: MixedExample) -> tuple[str, ...]:
        return text_events(row, self._parent_texts(row)) if self.check_texts else ()

    def _parent_texts(self, row: MixedExample) -> list[str]:
        unlabeled = [self.unlabeled[parent] for parent in row.unlabeled_parents]
        return [self.texts[parent] for parent in row.parents] + unlabeled

    def _leaks(self, row: MixedExample) -> bool:
        near = None if self.guard is None else self.guard.near(row.text)
        if near is not None and self.fail_on_leak:
            raise LeakError(
                f"A generated sentence is a near-duplicate of an evaluation text: {row.text!r} and "
                f"{near!r} (parents {row.parents}). Set `leaks: drop` to regenerate such rows."
            )
        return near is not None

    def _is_redrawn(self, found: Finding) -> bool:
        if _ALWAYS & set(found.events):
            return True
        if self.policy == "keep":
            return False
        redrawn = self.policy in _REDRAWN or bool(_BAD_TEXT & set(found.events))
        return redrawn and bool(found.events)

    def _mended(self, row: MixedExample, found: Finding) -> MixedExample:
        if self.policy == "keep" and row.attempts == 1 and not self._is_redrawn(found):
            return row
        if not found.events or (self.policy == "keep" and not self._is_redrawn(found)):
            how = "none" if row.attempts == 1 else f"redrawn:{_REDRAWN.get(self.policy, 'pair')}"
            return replace(row, mitigation=how)
        if self._is_redrawn(found):
            return self._parent(row)
        judged, label = found.judged, torch.tensor(row.label)
        if self.policy == "weight":
            overlap = float(torch.minimum(label, judged).sum())
            return replace(row, mitigation="weighted", weight=round(overlap, 4))
        step = 1.0 if self.policy == "relabel" else self.blend
        mixed = (1 - step) * label + step * judged
        name = "relabelled" if self.policy == "relabel" else "blended"
        return replace(row, mitigation=name, label=tuple((mixed / mixed.sum()).tolist()))

    def _parent(self, row: MixedExample) -> MixedExample:
        """The first parent in place of the row; the judges have not seen this text."""
        label = tuple(self.targets[row.parents[0]].tolist()) if row.parents else ()
        return replace(
            row,
            text=self._parent_texts(row)[0],
            label=label,  # the committee gives unlabelled texts theirs
            lam=1.0,
            shares=(1.0, *(0.0 for _ in row.shares[1:])),
            judges={},
            mitigation="parent",
            weight=1.0,
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
    texts_only: bool = False,
    unlabeled: Sequence[str] = (),
    check: TextCheck | None = None,
) -> Gate | None:
    """Build the gate for one training set and calibrate its thresholds on it.

    Args:
        texts: The training texts (N).
        embeddings: Their embeddings (N, D).
        targets: Their one-hot labels (N, C).
        encoder: Embeds generated sentences.
        judges: Names of registered judges; the opinions of several are averaged.
        log_likelihood: Needed by the judge `llm`: `Inverter.label_log_likelihood`.
        label_names: Names of the classes (C); needed by the judge `llm`.
        policy: As for `Gate`; `off` judges nothing.
        max_redraws: As for `Gate`.
        rate: Share of real rows that may trigger an event.
        eval_texts: Texts the model is evaluated on, for the leak guard.
        leaks: One of `LEAK_POLICIES`.
        seed: Seed of the calibration sample and of the classifier's folds.
        texts_only: Judge no labels, because rows get theirs afterwards: with a policy, only
            `collapse` and `degenerate` are found, and no judges are made.
        unlabeled: Unlabelled texts that may be parents; with `texts_only`.
        check: As for `Gate`.

    Returns:
        The gate; None where there is nothing to judge and nothing to guard.
    """
    errors.one_of("leaks", leaks, LEAK_POLICIES)
    guard = LeakGuard(eval_texts) if eval_texts and leaks != "off" else None
    if policy == "off" and guard is None and check is None:
        return None
    detector = None
    if policy != "off" and not texts_only:
        rows = sample_of(targets.argmax(1).numpy(), seed, "Judges are fitted")
        seen = texts, embeddings, targets
        if len(rows) < len(texts):
            at = torch.from_numpy(rows)
            seen = [texts[row] for row in rows.tolist()], embeddings[at], targets[at]
        inputs = JudgeInputs(*seen, encoder, label_names, log_likelihood, seed)
        made = {name: build_judge(name, inputs) for name in judges}
        if len(rows) < len(texts):
            made = {name: SampledJudge(each, rows, len(texts)) for name, each in made.items()}
        detector = Detector(made, texts, embeddings, targets, rate=rate, seed=seed, compared=rows)
    return Gate(
        detector,
        texts,
        targets,
        encoder,
        policy="keep" if policy == "off" else policy,
        max_redraws=max_redraws,
        guard=guard,
        fail_on_leak=leaks == "fail",
        check_texts=texts_only and policy != "off",
        unlabeled=unlabeled,
        check=check,
    )
