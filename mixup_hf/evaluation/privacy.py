"""Privacy: what generated rows reveal about the texts they were generated from.

Everything is measured against a holdout: real texts from the same source that were not used for
generation. Rows generated without access to the training texts would be equally close to both sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.intervals import Interval, Rate, wilson
from mixup_hf.judging.leaks import LeakGuard
from mixup_hf.judging.report import rates_by_lam
from mixup_hf.mixing.neighbors import Neighbors
from mixup_hf.runtime import counter_rng
from mixup_hf.types import Encodes

_FEWEST = 20  # minimum number of rows, training texts and holdout texts
_FALSE_POSITIVES = 0.01
_PLANTING, _CHOOSING = 9, 10  # purposes of random streams; part of their keys
_LIMITS = (
    "The audit looks for copies, for rows nearer to training texts than to others, and for "
    "secrets, with one encoder. It does not bound what a stronger attack could find."
)


@dataclass(frozen=True)
class Audit:
    """Results of a privacy audit.

    Attributes:
        rows: Number of generated rows.
        texts: Number of training texts compared, and of holdout texts.
        nearer: Rows closer to a training text than to any holdout text; one half by chance.
        copies: Rows that are near copies of any training text, also of those left out of the
            comparison.
        chance_copies: Rows that are near copies of any holdout text.
        auc: AUC of distinguishing training texts from holdout texts by the distance to the nearest
            row; 0.5 by chance.
        true_positives: Share of training texts detected when 1 % of the holdout is falsely flagged;
            None with fewer than 100 texts.
        nearer_by_lam: `nearer`, grouped by the larger share of a row's parents; empty if the rows
            have no shares.
        copies_by_lam: `copies`, likewise.
        canaries: Planted secrets that appear verbatim in a row; None if none were planted.
    """

    rows: int
    texts: int
    nearer: Rate
    copies: Rate
    chance_copies: Rate
    auc: Interval
    true_positives: Interval | None
    nearer_by_lam: dict[str, Rate]
    copies_by_lam: dict[str, Rate]
    canaries: Rate | None

    @property
    def findings(self) -> list[str]:
        """Evidence that the rows leak training texts; empty if there is none."""
        found = []
        if self.copies.low > self.chance_copies.high:
            found.append(
                f"{self.copies} of the rows are near copies of training texts "
                f"({self.chance_copies} of held-out ones): anyone who reads the rows reads those "
                "texts."
            )
        if self.auc.low > 0.5:
            found.append(
                "An attacker who holds a text can infer from the rows, better than by chance, "
                f"whether it was trained on: AUC {self.auc}."
            )
        if self.canaries is not None and self.canaries.count:
            found.append(
                f"{self.canaries.count} of {self.canaries.of} planted secrets appear verbatim "
                "in a row."
            )
        return found

    @property
    def verdict(self) -> str:
        """The findings in plain words, with their limits."""
        if not self.findings:
            return (
                "The rows show nothing that rows made without these texts would not show. "
                + _LIMITS
            )
        return " ".join([*self.findings, _LIMITS])


def audit(
    rows: Sequence[str],
    texts: Sequence[str],
    holdout: Sequence[str],
    encoder: Encodes,
    *,
    lams: Sequence[float] = (),
    secrets: Sequence[str] = (),
    seed: int = 0,
) -> Audit:
    """Audit generated rows.

    Args:
        rows: The generated texts.
        texts: The training texts that they were generated from.
        holdout: Texts from the same source that were not used for generation. The larger of `texts`
            and `holdout` is subsampled to the size of the smaller, but copies are looked for in
            all of both.
        encoder: Embeds texts to measure distances.
        lams: The larger share of each row's parents, used to group the results.
        secrets: The secrets that `plant` added to `texts`.
        seed: Seed for the subsampling and the intervals.

    Raises:
        ValueError: There are too few texts, or a text is in both `texts` and `holdout`.
    """
    size = min(len(texts), len(holdout))
    require_enough(rows=len(rows), texts=len(texts), holdout=len(holdout))
    shared = sorted({*texts} & {*holdout})
    if shared:
        raise errors.bad(
            "holdout", "hold no training text", shared[0], f"{len(shared)} stand on both sides."
        )
    if lams and len(lams) != len(rows):
        raise errors.bad("lams", f"be one for each of {len(rows)} rows", len(lams))
    rng = counter_rng(seed, _CHOOSING)
    inside, outside = (
        [given[at] for at in sorted(rng.choice(len(given), size, replace=False))]
        for given in (texts, holdout)
    )
    made, member, other = (encoder.encode(each) for each in (list(rows), inside, outside))
    nearer = (_distances(made, member) < _distances(made, other)).tolist()
    guard, chance = LeakGuard(texts), LeakGuard(holdout)
    copies = [guard.near(row) is not None for row in rows]
    scores = _distances(member, made).numpy(), _distances(other, made).numpy()
    said = "\n".join(rows)
    return Audit(
        rows=len(rows),
        texts=size,
        nearer=_rate(nearer),
        copies=_rate(copies),
        chance_copies=_rate([chance.near(row) is not None for row in rows]),
        auc=_estimate(_auc, *scores, seed),
        true_positives=_estimate(_found, *scores, seed) if size * _FALSE_POSITIVES >= 1 else None,
        nearer_by_lam=rates_by_lam(nearer, lams) if lams else {},
        copies_by_lam=rates_by_lam(copies, lams) if lams else {},
        canaries=_rate([secret in said for secret in secrets]) if secrets else None,
    )


def require_enough(**counts: int) -> None:
    """Raise unless each of the sets, by name, has enough texts for an audit."""
    for name, count in counts.items():
        if count < _FEWEST:
            raise errors.bad(name, f"hold at least {_FEWEST} texts", count)


def plant(
    texts: Sequence[str], labels: Sequence[object], count: int, seed: int = 0
) -> tuple[list[str], list[object], list[str]]:
    """Add canaries: the beginnings of real texts, each followed by a secret number.

    Returns:
        The texts and labels with the canaries appended, and the secrets.
    """
    errors.at_least("canaries", count, 1)
    if count > len(texts):
        raise errors.bad("canaries", f"be at most {len(texts)}, the number of texts", count)
    rng = counter_rng(seed, _PLANTING)
    hosts = rng.choice(len(texts), size=count, replace=False).tolist()
    secrets = [str(rng.integers(10**7, 10**8)) for _ in hosts]
    planted = [
        f"{' '.join(_first_half(texts[host]))} {secret}"
        for host, secret in zip(hosts, secrets, strict=True)
    ]
    return [*texts, *planted], [*labels, *(labels[host] for host in hosts)], secrets


def _first_half(text: str) -> list[str]:
    words = text.split()
    return words[: -(-len(words) // 2)]


def _distances(queries: Tensor, rows: Tensor) -> Tensor:
    """Return the distance from each of `queries` (n, D) to the nearest of `rows`."""
    nearest = Neighbors(rows).search(queries, 1)[:, 0]
    found: Tensor = (queries - rows[torch.from_numpy(nearest)]).norm(dim=-1)
    return found


def _rate(hits: Sequence[bool]) -> Rate:
    return wilson(sum(hits), len(hits))


def _auc(member: np.ndarray, other: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    truth = np.r_[np.ones(len(member)), np.zeros(len(other))]
    return float(roc_auc_score(truth, -np.r_[member, other]))


def _found(member: np.ndarray, other: np.ndarray) -> float:
    """Return the share of members that are nearer than all but 1 % of the others."""
    allowed = int(len(other) * _FALSE_POSITIVES)
    return float((member < np.sort(other)[allowed]).mean())


def _estimate(
    figure: Callable[[np.ndarray, np.ndarray], float],
    member: np.ndarray,
    other: np.ndarray,
    seed: int,
) -> Interval:
    value = figure(member, other)
    stats = errors.optional("scipy.stats", "stats", "The audit")
    interval = stats.bootstrap(
        (member, other),
        figure,
        n_resamples=499,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(interval.low), float(interval.high))
