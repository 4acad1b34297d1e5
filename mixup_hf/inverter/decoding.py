"""From embeddings to sentences: batches that fit in memory, several candidates, the best one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mixup_hf import errors
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.inverter.guidance import favour
from mixup_hf.inverter.parent_words import Parents
from mixup_hf.runtime import memory_ran_out

if TYPE_CHECKING:
    from mixup_hf.inverter.model import Inverter


class _Request(NamedTuple):
    """What a writer is asked for.

    Attributes:
        prompts: Prompt embeddings (B, P, H).
        favour: Nats (B, V) added to the logits; None without guidance.
    """

    prompts: Tensor
    favour: Tensor | None


def check_request(
    dimension: int, embeddings: Tensor, parents: Sequence[Parents] | None, batch_size: int
) -> None:
    """Raise `InvalidInput` unless embeddings are (N, D), with N mixes' parents if any."""
    if embeddings.ndim != 2 or embeddings.shape[1] != dimension:
        raise errors.bad("embeddings", f"be of shape (N, {dimension})", tuple(embeddings.shape))
    if parents is not None and len(parents) != len(embeddings):
        raise errors.bad("parents", f"be those of {len(embeddings)} mixes", len(parents))
    errors.at_least("batch_size", batch_size, 1)


def seed_keys(seed: int | Sequence[int]) -> tuple[int, ...]:
    """A seed, or several, as a key; raises `InvalidInput` if one is negative."""
    keys = tuple(seed) if isinstance(seed, Sequence) else (int(seed),)
    for key in keys:
        errors.at_least("seed", key, 0)
    return keys


def decode_embeddings(
    inverter: Inverter,
    embeddings: Tensor,
    llm: Any,
    settings: DecodeSettings,
    keys: tuple[int, ...],
    parents: Sequence[Parents] | None,
    batch_size: int,
    on_batch: Callable[[int], object],
    lengths: Sequence[int] | None = None,
) -> list[str]:
    """Decode embeddings (N, D) to N sentences, in smaller batches when memory runs out.

    Args:
        inverter: Encoder, prompt and engine.
        embeddings: (N, D).
        llm: The causal LM, for the size of its vocabulary.
        settings: How to sample.
        keys: Seeds; row r of candidate c samples from the stream (*keys, c, r).
        parents: Of each embedding (N), for hints from their words; None for none.
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
        some = slice(start, start + batch_size)
        rows = embeddings[some]
        try:
            request = _request(inverter, llm, rows, None if parents is None else parents[some])
            wanted = None if lengths is None else lengths[some]
            sentences += _best(inverter, rows, request, settings, keys, start, wanted)
        except RuntimeError as error:
            batch_size = _smaller_batch(error, len(rows))
            continue
        on_batch(len(rows))
    return sentences


def _request(
    inverter: Inverter, llm: Any, embeddings: Tensor, parents: Sequence[Parents] | None
) -> _Request:
    given = embeddings.to(inverter.device).float()
    if parents is None:
        return _Request(inverter.prompts(given), favour(inverter.aligner, llm, given))
    words = inverter.parent_words
    preferred = words.preferred(parents)
    guided = favour(inverter.aligner, llm, given, preferred, partial(words.pieces, parents))
    return _Request(inverter.prompts(given, preferred), guided)


def _best(
    inverter: Inverter,
    embeddings: Tensor,
    request: _Request,
    settings: DecodeSettings,
    keys: tuple[int, ...],
    start: int,
    lengths: Sequence[int] | None,
) -> list[str]:
    """For each row the candidate whose round trip is closest to its embedding."""
    # Engines of other packages need not know of guidance and lengths.
    asked: dict[str, Any] = {} if lengths is None else {"lengths": lengths}
    if request.favour is not None:
        asked["favour"] = request.favour
    candidates = []
    for turn in range(settings.num_candidates):
        streams = [(*keys, turn, start + row) for row in range(len(embeddings))]
        texts = inverter.writer.write(request.prompts, settings, streams, **asked)
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
