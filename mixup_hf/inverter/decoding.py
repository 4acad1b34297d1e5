"""From embeddings to sentences, in batches that fit in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mixup_hf import errors
from mixup_hf.inverter.correction import decode_closest
from mixup_hf.inverter.engines.base import DecodeSettings
from mixup_hf.inverter.guidance import favour
from mixup_hf.inverter.parent_words import Parents
from mixup_hf.mixing.interpolation import linear
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

    def of(self, rows: Sequence[int]) -> _Request:
        """The request of these rows (ascending) only."""
        if len(rows) == len(self.prompts):
            return self
        favoured = None if self.favour is None else self.favour[list(rows)]
        return _Request(self.prompts[list(rows)], favoured)


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


def mixes_between(inverter: Inverter, first: str, second: str, lams: Sequence[float]) -> Tensor:
    """Mixes (n, D) of two texts at ratios `lams` (n); raises `InvalidInput` beyond [0, 1]."""
    for lam in lams:
        errors.in_range("lams", lam, 0.0, 1.0, "1 is the first text, 0 the second.")
    ends = inverter.encode([first, second])
    weights = inverter.mix_weights(torch.tensor(list(lams), dtype=torch.float32))
    return linear(ends[:1].expand(len(lams), -1), ends[1:].expand(len(lams), -1), weights)


def lengths_between(
    inverter: Inverter, first: str, second: str, lams: Sequence[float]
) -> list[int]:
    """Lengths (n) in tokens on the way from `second` (0) to `first` (1), for `invert(lengths=)`."""
    ids = inverter.tokenizer([first, second], add_special_tokens=False)["input_ids"]
    ends = [len(each) for each in ids]
    return [max(1, round(lam * ends[0] + (1 - lam) * ends[1])) for lam in lams]


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
        keys: Seeds; attempt t of row r samples from the stream (*keys, t, r).
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
            near = None if parents is None else parents[some]
            wanted = None if lengths is None else lengths[some]
            batch = _Batch(inverter, llm, settings, keys, start, rows, near, wanted)
            sentences += decode_closest(batch.decode, inverter.encode, rows, settings)
        except RuntimeError as error:
            batch_size = _smaller_batch(error, len(rows))
            continue
        on_batch(len(rows))
    return sentences


class _Batch:
    """Rows that are decoded together, as often as it takes.

    Args:
        inverter: Encoder, prompt and engine.
        llm: The causal LM.
        settings: How to sample.
        keys: Seeds.
        start: Number of the first row: row r samples from the stream (*keys, turn, start + r).
        embeddings: (B, D).
        parents: Of each row (B); None for hints from the embeddings alone.
        lengths: Wanted lengths (B), in tokens; None leaves them to the LLM.
    """

    def __init__(
        self,
        inverter: Inverter,
        llm: Any,
        settings: DecodeSettings,
        keys: tuple[int, ...],
        start: int,
        embeddings: Tensor,
        parents: Sequence[Parents] | None,
        lengths: Sequence[int] | None,
    ) -> None:
        self._inverter, self._llm, self._settings = inverter, llm, settings
        self._keys, self._start = keys, start
        self._parents, self._lengths = parents, lengths
        self._request = self._ask(embeddings, range(len(embeddings)))

    def decode(self, turn: int, rows: Sequence[int], targets: Tensor | None) -> list[str]:
        """An `Attempt`: one sentence for each of the rows (n), of targets (n, D) if given."""
        request = self._request.of(rows) if targets is None else self._ask(targets, rows)
        # Engines of other packages need not know of guidance and lengths.
        asked: dict[str, Any] = {}
        if self._lengths is not None:
            asked["lengths"] = [self._lengths[row] for row in rows]
        if request.favour is not None:
            asked["favour"] = request.favour
        streams = [(*self._keys, turn, self._start + row) for row in rows]
        texts = self._inverter.writer.write(request.prompts, self._settings, streams, **asked)
        return [_tidy(text) for text in texts]

    def _ask(self, embeddings: Tensor, rows: Sequence[int]) -> _Request:
        inverter, llm = self._inverter, self._llm
        given = embeddings.to(inverter.device).float()
        if self._parents is None:
            return _Request(inverter.prompts(given), favour(inverter.aligner, llm, given))
        parents = [self._parents[row] for row in rows]
        words = inverter.parent_words
        preferred = words.preferred(parents)
        guided = favour(inverter.aligner, llm, given, preferred, partial(words.pieces, parents))
        return _Request(inverter.prompts(given, preferred), guided)


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
