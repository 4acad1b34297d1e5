"""From embeddings to sentences: batches that fit in memory, several candidates, the best one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import errors
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.runtime import memory_ran_out

if TYPE_CHECKING:
    from mixup_hf.inverter.model import Inverter


def decode_embeddings(
    inverter: Inverter,
    embeddings: Tensor,
    settings: DecodeSettings,
    keys: tuple[int, ...],
    batch_size: int,
    on_batch: Callable[[int], object],
    lengths: Sequence[int] | None = None,
) -> list[str]:
    """Decode embeddings (N, D) to N sentences, in smaller batches when memory runs out.

    Args:
        inverter: Encoder, prompt and engine.
        embeddings: (N, D).
        settings: How to sample.
        keys: Seeds; row r of candidate c samples from the stream (*keys, c, r).
        batch_size: Rows decoded at a time.
        on_batch: Called with the number of rows after each batch.
        lengths: Wanted lengths (N), in tokens; None leaves them to the LLM.

    Raises:
        InvalidInput: An embedding has NaN or infinity, there are not N lengths, or one is below 1.
    """
    if not embeddings.isfinite().all():
        raise errors.bad("embeddings", "be finite", "NaN or infinity")
    if lengths is not None:
        if len(lengths) != len(embeddings):
            raise errors.bad("lengths", f"give one for each of {len(embeddings)}", len(lengths))
        errors.at_least("lengths", min(lengths, default=1), 1)
    sentences: list[str] = []
    while (start := len(sentences)) < len(embeddings):
        rows = embeddings[start : start + batch_size]
        try:
            sentences += _best(inverter, rows, settings, keys, start, lengths)
        except RuntimeError as error:
            batch_size = _smaller_batch(error, len(rows))
            continue
        on_batch(len(rows))
    return sentences


def _best(
    inverter: Inverter,
    embeddings: Tensor,
    settings: DecodeSettings,
    keys: tuple[int, ...],
    start: int,
    lengths: Sequence[int] | None,
) -> list[str]:
    """For each row the candidate whose round trip is closest to its embedding."""
    prompts = inverter.prompts(embeddings)
    wanted = {} if lengths is None else {"lengths": lengths[start : start + len(embeddings)]}
    candidates = []
    for turn in range(settings.num_candidates):
        streams = [(*keys, turn, start + row) for row in range(len(embeddings))]
        texts = inverter.writer.write(prompts, settings, streams, **wanted)
        candidates.append([_tidy(text) for text in texts])
    if len(candidates) == 1:
        return candidates[0]
    closeness = torch.stack(
        [F.cosine_similarity(inverter.encode(texts), embeddings.cpu()) for texts in candidates]
    )
    winners = closeness.argmax(0).tolist()
    return [candidates[winner][row] for row, winner in enumerate(winners)]


def _smaller_batch(error: RuntimeError, size: int) -> int:
    """Half of a batch for which memory ran out; any other error is raised again."""
    if size == 1 or not memory_ran_out(error):
        raise error
    warnings.warn(
        f"Out of memory while decoding {size} sentences at once: continuing with {size // 2}. Set "
        f"`batch_size` (in training: `chunk_size`) to {size // 2} to start with that.",
        stacklevel=3,
    )
    return size // 2


def _tidy(text: str) -> str:
    """Collapse white space to single spaces. A sentence of white space only becomes an ellipsis."""
    return " ".join(text.split()) or "..."
