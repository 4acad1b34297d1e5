"""How often generated rows had events: overall, by ratio and by distance between parents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixup_hf.intervals import Rate, wilson
from mixup_hf.judging.events import EVENTS, FORM_EVENTS, Detector
from mixup_hf.judging.form import novel_names
from mixup_hf.judging.judges import Judge
from mixup_hf.mixing.neighbors import NOBODY
from mixup_hf.types import MixedExample


@dataclass(frozen=True)
class IntrusionReport:
    """Rates of events among first attempts, and what was done about them.

    Attributes:
        overall: Rate of any event.
        by_event: Rate of each event.
        by_lam: Rate of any event, by the larger of the parents' weights.
        by_distance: Rate of any event, by the cosine similarity of the first two parents; empty
            without embeddings.
        mitigations: Number of rows by what was done.
    """

    overall: Rate
    by_event: dict[str, Rate]
    by_lam: dict[str, Rate]
    by_distance: dict[str, Rate]
    mitigations: dict[str, int]


def false_alarms(
    make_judge: Callable[[Tensor, Tensor], Judge],
    texts: Sequence[str],
    embeddings: Tensor,
    targets: Tensor,
    *,
    rate: float = 0.05,
    seed: int = 0,
) -> Rate:
    """How often a judge doubts real rows that it has not seen.

    The judge is built from one half of the rows, and its thresholds are calibrated there; the
    other half is judged.

    Args:
        make_judge: Builds the judge from embeddings and targets.
        texts: Real texts (N).
        embeddings: Their embeddings (N, D).
        targets: Their one-hot labels (N, C).
        rate: The rate that the thresholds are calibrated for.
        seed: Seed of the split into halves.
    """
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))
    seen, unseen = order[: len(order) // 2], order[len(order) // 2 :]
    here = [texts[row] for row in seen.tolist()]
    judges = {"judge": make_judge(embeddings[seen], targets[seen])}
    detector = Detector(judges, here, embeddings[seen], targets[seen], rate=rate)
    others = [texts[row] for row in unseen.tolist()]
    nobody = np.full((len(others), 1), NOBODY)
    judged = detector.opinions(others, embeddings[unseen], nobody)["judge"]
    labels = targets[unseen]
    own = labels.argmax(1)[:, None]
    scores = detector.scores(judged, labels, embeddings[unseen], own)
    doubted = torch.stack(list(detector.triggered(scores, own).values())).any(0)
    return wilson(int(doubted.sum()), len(others))


def intrusion_report(
    rows: Sequence[MixedExample], embeddings: Tensor | None = None
) -> IntrusionReport:
    """Count the events of rows that went through a gate.

    Args:
        rows: Generated rows.
        embeddings: Embeddings of the training texts (N, D), to group rows by how similar their
            parents are.
    """
    # Not unlabelled texts, nor mixes of such: nobody has labelled their parents.
    rows = [row for row in rows if row.parents and not row.unlabeled_parents]
    hit = [bool(row.events) for row in rows]
    distance = {} if embeddings is None else _rates(hit, _cosines(rows, embeddings), _cosine_bin)
    # A gate may not have looked for these.
    unseen = {name for name in FORM_EVENTS if not any(name in row.events for row in rows)}
    return IntrusionReport(
        overall=wilson(sum(hit), len(hit)),
        by_event={
            name: wilson(sum(name in row.events for row in rows), len(rows))
            for name in EVENTS
            if name not in unseen
        },
        by_lam=rates_by_lam(hit, [_larger(row) for row in rows]),
        by_distance=distance,
        mitigations=dict(Counter(row.mitigation for row in rows)),
    )


def events_line(rows: Iterable[MixedExample], texts: Sequence[str] = ()) -> str | None:
    """One line about rows that went through a gate; None where there is nothing to say.

    Unlike `intrusion_report` it needs no statistics package, so any training run can log it.

    Args:
        rows: Generated rows.
        texts: The training texts (N); without them, new names are not counted.
    """
    rows = list(rows)
    parts = []
    doubtful = sum(bool(row.events) for row in rows)
    if doubtful:
        events = Counter(name for row in rows for name in row.events)
        found = ", ".join(f"{name} {events[name]}" for name in EVENTS if events[name])
        actions = Counter(row.mitigation for row in rows)
        done = ", ".join(f"{name} {count}" for name, count in sorted(actions.items()))
        parts.append(
            f"{doubtful} of {len(rows)} generated sentences were doubtful at first ({found}). "
            f"Actions: {done}"
        )
        copies = sum(row.is_copy for row in rows)
        if copies:
            parts.append(f"Copies of training rows, every redraw being doubtful too: {copies}")
    invented = sum(bool(novel_names(row, texts)) for row in rows) if texts else 0
    if invented:
        parts.append(
            f"{invented} of {len(rows)} generated sentences have names or numbers of no parent"
        )
    return ". ".join(parts) or None


def rates_by_lam(hit: Sequence[bool], lams: Sequence[float]) -> dict[str, Rate]:
    """Rate of hits by tenths of the larger weight."""
    return _rates(hit, lams, _lam_bin)


def _rates(
    hit: Sequence[bool], values: Iterable[float], name: Callable[[float], str]
) -> dict[str, Rate]:
    groups: dict[str, list[bool]] = {}
    for each, value in zip(hit, values, strict=True):
        groups.setdefault(name(value), []).append(each)
    return {key: wilson(sum(groups[key]), len(groups[key])) for key in sorted(groups)}


def _larger(row: MixedExample) -> float:
    # A row that its parent replaced counts as ratio 1: its original ratio is not recorded.
    return min(1.0, max(row.shares))


def _lam_bin(lam: float) -> str:
    low = min(0.9, max(0.0, lam // 0.1 / 10))
    return f"{low:.1f}-{low + 0.1:.1f}"


def _cosine_bin(cosine: float) -> str:
    low = min(0.8, max(0.0, cosine // 0.2 / 5))
    return f"cosine {low:.1f}-{low + 0.2:.1f}"


def _cosines(rows: Sequence[MixedExample], embeddings: Tensor) -> list[float]:
    parents = torch.tensor([row.parents[:2] for row in rows])
    first, second = embeddings[parents].unbind(1)
    cosines: list[float] = torch.cosine_similarity(first, second, dim=-1).tolist()
    return cosines
