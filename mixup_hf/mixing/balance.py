"""Class balance: how often each class has to be added so that rare ones count as much as others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def imbalance(sizes: np.ndarray) -> float:
    """How many times as many rows the largest class has as the smallest one that has any.

    Args:
        sizes: Rows of each class (C,).
    """
    present = sizes[sizes > 0]
    return float(present.max() / present.min())


def lacking(sizes: np.ndarray, share: float) -> np.ndarray:
    """Shares (C,) of the classes among added rows that make up for what the real ones lack.

    Args:
        sizes: Real rows of each class (C,). One without rows gets none.
        share: Share of added rows among all, above 0 and at most 1.
    """
    even = (sizes > 0) / np.count_nonzero(sizes)
    wanted = np.clip(even - (1 - share) * sizes / sizes.sum(), 0, None)
    found: np.ndarray = wanted / wanted.sum()
    return found


def lacking_rows(classes: np.ndarray, share: float) -> dict[int, int]:
    """As `lacking`, as numbers of rows: as many in all as there are real ones.

    Args:
        classes: Class indices of the real rows (N,).
        share: Share of added rows among all.

    Returns:
        Rows of each class that needs any.
    """
    exact = lacking(np.bincount(classes), share) * len(classes)
    counts = np.floor(exact).astype(int)
    most_left = np.argsort(counts - exact, kind="stable")
    counts[most_left[: len(classes) - counts.sum()]] += 1
    return {label: count for label, count in enumerate(counts.tolist()) if count}


def draw_turn(
    wanted: Mapping[int, int], members: Mapping[int, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Rows in a random order: of each class as many as wanted, each once before any is twice.

    Args:
        wanted: Rows of each class.
        members: The rows that each of these classes has.
        rng: Source of randomness.
    """
    rows = []
    for label, count in wanted.items():
        passes = [rng.permutation(members[label]) for _ in range(-(-count // len(members[label])))]
        rows.append(np.concatenate(passes)[:count])
    drawn: np.ndarray = rng.permutation(np.concatenate(rows))
    return drawn
