"""Contrastive tuning of a sentence encoder on few labelled rows (SetFit, arXiv 2209.11055)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixup_hf.inverter.quantization import fast_autocast
from mixup_hf.judging.labels.types import TunesEncoder
from mixup_hf.runtime import counter_rng

_LEARNING_RATE = 4e-5
_WARMUP = 0.1  # share of the steps
_BATCH_PAIRS = 16
_PAIRS_PER_ROW = 10  # of the same class, and as many of different classes


def draw_pairs(classes: np.ndarray, max_steps: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs of rows as (n, 3): two row numbers, and whether their classes are the same.

    About ten pairs of each kind per row, but no more than `max_steps` batches. A row that is alone
    in its class is in no pair of the same class.
    """
    count = len(classes)
    rounds = min(_PAIRS_PER_ROW, -(-max_steps * _BATCH_PAIRS // (2 * count)))
    pairs = []
    for _ in range(rounds):
        for row in range(count):
            same = classes == classes[row]
            others = np.flatnonzero(~same)
            same[row] = False
            for partners, label in ((np.flatnonzero(same), 1), (others, 0)):
                if len(partners):
                    pairs.append((row, int(rng.choice(partners)), label))
    drawn = np.array(pairs, np.int64).reshape(-1, 3)
    return drawn[rng.permutation(len(drawn))][: max_steps * _BATCH_PAIRS]


def tune(
    encoder: TunesEncoder,
    texts: Sequence[str],
    classes: np.ndarray,
    *,
    max_steps: int,
    seed: int = 0,
) -> None:
    """Draw embeddings of one class together and those of different classes apart, in place.

    The loss is the squared difference between the cosine of a pair and 1 or 0. The same arguments
    give the same weights; the global random state is left as it was.

    Args:
        encoder: The encoder; only parameters that require a gradient change.
        texts: (n).
        classes: Their classes (n).
        max_steps: Most optimizer steps, of 16 pairs each.
        seed: Seed of pairs and dropout.
    """
    pairs = draw_pairs(classes, max_steps, counter_rng(seed))
    steps = -(-len(pairs) // _BATCH_PAIRS)
    if not steps:  # a single row
        return
    parameters = [each for each in encoder.model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (_WARMUP * steps)) * (steps - step) / steps
    )
    device = parameters[0].device
    encoder.model.train()
    with _own_random_state(device, seed):
        for step in range(steps):
            batch = pairs[step * _BATCH_PAIRS : (step + 1) * _BATCH_PAIRS]
            with fast_autocast(device):
                embedded = encoder.embed([texts[row] for row in batch[:, :2].T.flat])
            first, second = embedded.float().chunk(2)
            cosines = F.cosine_similarity(first, second)
            wanted = torch.from_numpy(batch[:, 2]).to(cosines)
            F.mse_loss(cosines, wanted).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    encoder.model.eval()


def embed(encoder: TunesEncoder, texts: Sequence[str]) -> Tensor:
    """Embeddings (n, D) by a tuned encoder, float32, on the CPU."""
    with fast_autocast(next(encoder.model.parameters()).device):
        return encoder.encode(texts).float()


@contextmanager
def _own_random_state(device: torch.device, seed: int) -> Iterator[None]:
    """A random state for dropout; the global one is restored afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
