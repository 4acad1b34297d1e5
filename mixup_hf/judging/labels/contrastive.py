"""A contrastive loss over all pairs of a batch, and tuning of an encoder on few rows by it.

SetFit (arXiv 2209.11055) tunes on pairs drawn one by one, each with two texts of its own. Here each
text of a batch is compared with every other: B texts through the encoder give B (B - 1) / 2 pairs
instead of B / 2, so that far fewer texts are needed (figures in recipes/benchmarks/RESULTS.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixup_hf import runtime
from mixup_hf.inverter.quantization import fast_autocast
from mixup_hf.judging.labels.types import Tunes, TunesEncoder

LEARNING_RATE = 1e-4
_WARMUP = 0.1  # share of the steps
_BATCH_ROWS = 24
_TURNS = 30  # how often each row is drawn, where there are few of them
_SAME = 0.5  # pairs with a larger target are positive


def contrastive_loss(embeddings: Tensor, targets: Tensor) -> Tensor:
    """How far the cosines of all pairs of rows are from the products of their labels.

    `L = (mean over positive pairs + mean over negative pairs) / 2` of `(e_i . e_j - y_i . y_j)^2`,
    with e of unit length. A pair of two rows is positive where `y_i . y_j > 0.5`, else negative.
    Where a batch has pairs of one kind only, L is their mean; with fewer than two rows it is 0.

    Args:
        embeddings: (B, D), of any length.
        targets: y (B, C): one-hot or soft labels.

    Returns:
        A scalar, float32.
    """
    unit = F.normalize(embeddings.float(), dim=-1)
    wanted = targets.float() @ targets.float().T
    apart = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    errors_squared = (unit @ unit.T - wanted) ** 2
    positive, negative = (wanted > _SAME) & apart, (wanted <= _SAME) & apart
    kinds = (positive.any().int() + negative.any().int()).clamp(min=1)
    return (_mean(errors_squared, positive) + _mean(errors_squared, negative)) / kinds


def draw_batches(classes: np.ndarray, max_steps: int, rng: np.random.Generator) -> np.ndarray:
    """Batches of rows as (steps, B): rows in a random order, each beside one of its own class.

    So a batch has pairs of the same class even where there are many classes. A row that is alone in
    its class stands beside itself, and tells nothing about its class.

    Args:
        classes: Classes of the rows (n).
        max_steps: Most batches; few rows take fewer.
        rng: Draws order and partners.
    """
    half = _BATCH_ROWS // 2
    steps = count_steps(len(classes), max_steps)
    turns = -(-steps * half // max(len(classes), 1))
    order = [rng.permutation(len(classes)) for _ in range(turns)]
    rows = np.concatenate([*order, np.empty(0, np.int64)])[: steps * half].reshape(steps, half)
    partners = [[_partner(classes, row, rng) for row in batch] for batch in rows]
    return np.hstack([rows, np.array(partners, np.int64).reshape(steps, half)])


def count_steps(rows: int, max_steps: int) -> int:
    """How many steps `tune` takes on so many rows: each is drawn 30 times, if there is room."""
    return min(max_steps, -(-_TURNS * rows // _BATCH_ROWS)) if rows > 1 else 0


def tune(
    encoder: Tunes,
    texts: Sequence[str],
    classes: np.ndarray,
    *,
    max_steps: int,
    seed: int = 0,
    learning_rate: float = LEARNING_RATE,
) -> None:
    """Draw embeddings of one class together and those of different classes apart, in place.

    The loss of a step is `contrastive_loss` of its batch. The same arguments give the same weights;
    the global random state is left as it was.

    Args:
        encoder: The encoder; only parameters that require a gradient, and get one, change.
        texts: (n).
        classes: Their classes (n).
        max_steps: Most optimizer steps, of 24 texts each.
        seed: Seed of batches and dropout.
        learning_rate: Of AdamW, at its highest: it rises for a tenth of the steps, then falls.
    """
    batches = draw_batches(classes, max_steps, runtime.counter_rng(seed))
    steps = len(batches)
    if len(texts) < 2:
        return
    targets = F.one_hot(torch.from_numpy(classes.astype(np.int64)))
    parameters = [each for each in encoder.model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (_WARMUP * steps)) * (steps - step) / steps
    )
    device = parameters[0].device
    encoder.model.train()
    silent = not runtime.is_main_process()
    bar_of = runtime.progress_bar(steps, "tuning an encoder", leave=False, disable=silent)
    with _own_random_state(device, seed), bar_of as bar:
        for batch in batches:
            with fast_autocast(device):
                embedded = encoder.embed([texts[row] for row in batch])
            contrastive_loss(embedded, targets[batch].to(device)).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            bar.update()
            runtime.step_done()
    encoder.model.eval()


def embed(encoder: TunesEncoder, texts: Sequence[str]) -> Tensor:
    """Embeddings (n, D) by a tuned encoder, float32, on the CPU."""
    with fast_autocast(next(encoder.model.parameters()).device):
        return encoder.encode(texts).float()


def _partner(classes: np.ndarray, row: int, rng: np.random.Generator) -> int:
    """Another row of the same class; the row itself if there is none."""
    same = np.flatnonzero(classes == classes[row])
    others = same[same != row]
    return int(rng.choice(others)) if len(others) else int(row)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values; 0 if none is."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


@contextmanager
def _own_random_state(device: torch.device, seed: int) -> Iterator[None]:
    """A random state for dropout; the global one is restored afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
