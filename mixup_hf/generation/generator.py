"""Makes mixed rows: plan, encode, mix, invert, label, judge; chunk by chunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from mixup_hf import errors, runtime
from mixup_hf.config import check_interpolation
from mixup_hf.generation.cache import SentenceStore
from mixup_hf.mixing.interpolation import mix, mix_targets
from mixup_hf.mixing.pairing import PairPlan, Pairs
from mixup_hf.types import Encodes, MixedExample, Redraw, Reviews

# What a stream of random numbers is for; part of its key, so that streams never meet.
_DECODING = 1

Invert = Callable[[Tensor, Sequence[int]], list[str]]


class Producer:
    """Turns a pair plan into mixed examples.

    Parents are embedded once, on first use, and again after `forget`.

    Args:
        texts: The training texts (N).
        targets: Their labels: one-hot, multi-hot, or real numbers (N, C), float32.
        plan: Which rows are mixed, and how.
        encoder: Embeds the parents.
        invert: Decodes embeddings (n, D) with a seed key to n sentences.
        fingerprint: Of the aligner; goes into every row.
        interpolation: `linear`, `linear_renorm` or `slerp`.
        mix_weights: Embedding weights (n,) for ratios (n,) of two parents: `Inverter.mix_weights`.
            Default: the ratios themselves.
        gate: Makes what judges and mends the rows, when the first ones are made; None lets all
            through.
        provenance: `method` and `weights`, for every row.
        engine: Says what decodes; asked for every batch, for a server may be replaced.
        bounded: Whether targets are labels, and not real numbers: see `mix_targets`.
        store: Where decoded sentences are kept, and looked for before any are decoded.

    Attributes:
        decoded: How many sentences were decoded.
        reused: How many were found in the store.
        chunks_made: How many chunks were made here.
        seconds_per_row: Of the latest chunk, judging and redrawing included.
    """

    def __init__(
        self,
        texts: Sequence[str],
        targets: Tensor,
        plan: PairPlan,
        encoder: Encodes,
        invert: Invert,
        fingerprint: str,
        interpolation: str = "linear",
        *,
        mix_weights: Callable[[Tensor], Tensor] | None = None,
        gate: Callable[[], Reviews | None] | None = None,
        provenance: Mapping[str, str] | None = None,
        engine: Callable[[], str] = str,
        bounded: bool = True,
        store: SentenceStore | None = None,
    ) -> None:
        check_interpolation(interpolation, plan.weights.num_parents)
        self.interpolation = interpolation
        self.mix_weights = mix_weights
        self.provenance = dict(provenance or {})
        self.engine = engine
        self.bounded = bounded
        self._make_gate = gate
        self.texts: Sequence[str] = list(texts)
        self.targets = targets
        self.plan = plan
        self.encoder = encoder
        self.invert = invert
        self.fingerprint = fingerprint
        self.store = store
        self.decoded = self.reused = self._reported = self.chunks_made = 0
        self.seconds_per_row = 0.0
        self._embeddings: Tensor | None = None

    def embeddings(self) -> Tensor:
        """Embeddings of the training texts (N, D)."""
        if self._embeddings is None:
            self._embeddings = self.encoder.encode(self.texts)
        return self._embeddings

    def follow(self, encoder: Encodes, invert: Invert, fingerprint: str) -> None:
        """Use another encoder and inverter from now on; what they make is not kept in the store."""
        self.encoder, self.invert, self.fingerprint = encoder, invert, fingerprint
        self.store = None
        self.forget()

    def forget(self) -> None:
        """Embed the texts anew before the next rows: the encoder has moved."""
        self._embeddings = None
        self.plan.forget()

    def produce(
        self, epoch: int, num_rows: int, on_chunk: Callable[[int], object] | None = None
    ) -> list[MixedExample]:
        """All rows of one epoch's plan, the work shared among the processes.

        Args:
            epoch: Which epoch of the plan.
            num_rows: How many rows.
            on_chunk: Called with the number of rows of each chunk decoded here.
        """
        return self.make(epoch, self.chunks(num_rows), num_rows, on_chunk)

    def chunks(self, num_rows: int) -> range:
        """The chunks that hold `num_rows` rows."""
        errors.at_least("num_rows", num_rows, 1)
        return range(self.plan.num_chunks(num_rows))

    def make(
        self,
        epoch: int,
        chunks: range,
        num_rows: int,
        on_chunk: Callable[[int], object] | None = None,
    ) -> list[MixedExample]:
        """The rows of some chunks of an epoch's plan, in order, on every process.

        Process r decodes the chunks whose number is r modulo the world size. The rows do not depend
        on how many processes there are.
        """
        mine: dict[int, list[MixedExample]] = {}
        for chunk in self.share(chunks):
            mine[chunk] = self.chunk(epoch, chunk, num_rows)
            if on_chunk is not None:
                on_chunk(len(mine[chunk]))
        return self.gather(mine)

    def share(self, chunks: range) -> list[int]:
        """Those of `chunks` that this process decodes."""
        return [chunk for chunk in chunks if chunk % runtime.world_size() == runtime.rank()]

    def gather(self, mine: dict[int, list[MixedExample]]) -> list[MixedExample]:
        """The rows of all chunks, in order, from what each process has made."""
        every = runtime.merge(mine)
        if self.reused > self._reported:
            runtime.log(
                f"{self.reused - self._reported} sentences had been decoded by an earlier run "
                f"with the same settings and were taken from {self.store}"
            )
            self._reported = self.reused
        return [row for chunk in sorted(every) for row in every[chunk]]

    def chunk(self, epoch: int, chunk: int, num_rows: int) -> list[MixedExample]:
        """The rows of one chunk, decoded together, and judged where there is a gate."""
        started = time.monotonic()
        pairs = self.plan.chunk(epoch, chunk, num_rows)
        rows = self._decode(pairs, epoch, (self.plan.seed, _DECODING, epoch, chunk))
        gate = self._gate

        def redraw(places: list[int], attempt: int, how: Redraw) -> list[MixedExample]:
            chosen = Pairs(pairs.index[places], pairs.parents[places], pairs.shares[places])
            others = self.plan.redraw(chosen, epoch, chunk, attempt, how)
            return self._decode(others, epoch, (self.plan.seed, _DECODING, epoch, chunk, attempt))

        if gate is not None:
            rows = gate.review(rows, redraw)
        self.chunks_made += 1
        self.seconds_per_row = (time.monotonic() - started) / max(1, len(rows))
        return rows

    @cached_property
    def _gate(self) -> Reviews | None:
        return None if self._make_gate is None else self._make_gate()

    def _decode(self, pairs: Pairs, epoch: int, seed: tuple[int, ...]) -> list[MixedExample]:
        parents, shares = torch.from_numpy(pairs.parents), torch.from_numpy(pairs.shares)
        texts = self._sentences(parents, self._weights(shares), seed)
        engine = self.engine()
        labels = mix_targets(self.targets[parents], shares, bounded=self.bounded)
        return self._rows(pairs, texts, labels, epoch, engine)

    def _sentences(self, parents: Tensor, weights: Tensor, seed: tuple[int, ...]) -> list[str]:
        """Decoded from mixes of `parents` (n, m) by `weights` (n, m), or found in the store."""
        store = self.store
        kept = None if store is None else store.get(self._key(store, parents, weights, seed))
        if kept is not None:
            self.reused += len(kept)
            return kept
        mixes = mix(self.embeddings()[parents], weights, self.interpolation)
        texts = self.invert(mixes, seed)
        self.decoded += len(texts)
        if store is not None:  # under what has decoded them: a server may have been replaced
            store.put(self._key(store, parents, weights, seed), texts)
        return texts

    def _key(
        self, store: SentenceStore, parents: Tensor, weights: Tensor, seed: tuple[int, ...]
    ) -> str:
        return store.key(
            parents=[[self.texts[row] for row in rows] for rows in parents.tolist()],
            weights=weights.tolist(),
            interpolation=self.interpolation,
            engine=self.engine(),
            seed=seed,
        )

    def _weights(self, shares: Tensor) -> Tensor:
        if self.mix_weights is None or shares.shape[1] > 2:
            return shares
        first = self.mix_weights(shares[:, 0])
        return torch.stack([first, 1 - first], dim=1)

    def _rows(
        self, pairs: Pairs, texts: Sequence[str], labels: Tensor, epoch: int, engine: str
    ) -> list[MixedExample]:
        return [
            MixedExample(
                text=texts[row],
                label=tuple(labels[row].tolist()),
                lam=float(pairs.lams[row]),
                parents=tuple(pairs.parents[row].tolist()),
                shares=tuple(pairs.shares[row].tolist()),
                seed=self.plan.seed,
                epoch=epoch,
                index=int(pairs.index[row]),
                aligner_fingerprint=self.fingerprint,
                interpolation=self.interpolation,
                method=self.provenance.get("method", ""),
                weights=self.provenance.get("weights", ""),
                engine=engine,
            )
            for row in range(len(pairs))
        ]
