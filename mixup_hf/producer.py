"""Makes mixed rows: plan, encode, mix, invert, label; chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mixup_hf import _checks, distributed
from mixup_hf.mixing import INTERPOLATIONS, soft_labels
from mixup_hf.pairing import PairPlan, Pairs
from mixup_hf.records import Encodes, MixedExample

# What a stream of random numbers is for; part of its key, so that streams never meet.
_DECODING = 1

Invert = Callable[[Tensor, Sequence[int]], list[str]]


class Producer:
    """Turns a pair plan into mixed examples.

    Parents are embedded once, on first use: the encoder never moves.

    Args:
        texts: The training texts (N).
        labels: Their class indices (N).
        num_labels: C.
        plan: Which rows are mixed, and how.
        encoder: Embeds the parents.
        invert: Decodes embeddings (n, D) with a seed key to n sentences.
        fingerprint: Of the aligner; goes into every row.
        interpolation: `linear`, `linear_renorm` or `slerp`.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[int],
        num_labels: int,
        plan: PairPlan,
        encoder: Encodes,
        invert: Invert,
        fingerprint: str,
        interpolation: str = "linear",
    ) -> None:
        _checks.one_of("interpolation", interpolation, tuple(INTERPOLATIONS))
        self.interpolate = INTERPOLATIONS[interpolation]
        self.texts = list(texts)
        self.labels = torch.tensor(list(labels))
        self.num_labels = num_labels
        self.plan = plan
        self.encoder = encoder
        self.invert = invert
        self.fingerprint = fingerprint
        self._embeddings: Tensor | None = None

    def embeddings(self) -> Tensor:
        """Embeddings of the training texts (N, D)."""
        if self._embeddings is None:
            self._embeddings = self.encoder.encode(self.texts)
        return self._embeddings

    def produce(
        self, epoch: int, num_rows: int, on_chunk: Callable[[int], object] | None = None
    ) -> list[MixedExample]:
        """All rows of one epoch's plan, the work shared among the processes.

        Process r decodes chunks r, r + world size, ...; afterwards every process has all rows. The
        rows do not depend on how many processes there are.

        Args:
            epoch: Which epoch of the plan.
            num_rows: How many rows.
            on_chunk: Called with the number of rows of each chunk decoded here.
        """
        _checks.at_least("num_rows", num_rows, 1)
        rank, world = distributed.rank(), distributed.world_size()
        mine: dict[int, list[MixedExample]] = {}
        for chunk in range(rank, self.plan.num_chunks(num_rows), world):
            mine[chunk] = self.chunk(epoch, chunk, num_rows)
            if on_chunk is not None:
                on_chunk(len(mine[chunk]))
        every = distributed.merge(mine)
        return [row for chunk in sorted(every) for row in every[chunk]]

    def chunk(self, epoch: int, chunk: int, num_rows: int) -> list[MixedExample]:
        """The rows of one chunk, decoded as one batch."""
        pairs = self.plan.chunk(epoch, chunk, num_rows)
        first, second = torch.from_numpy(pairs.first), torch.from_numpy(pairs.second)
        lams = torch.from_numpy(pairs.lams)
        vectors = self.embeddings()
        mixes = self.interpolate(vectors[first], vectors[second], lams)
        texts = self.invert(mixes, (self.plan.seed, _DECODING, epoch, chunk))
        labels = soft_labels(self.labels[first], self.labels[second], lams, self.num_labels)
        return self._rows(pairs, texts, labels, epoch)

    def _rows(
        self, pairs: Pairs, texts: Sequence[str], labels: Tensor, epoch: int
    ) -> list[MixedExample]:
        return [
            MixedExample(
                text=texts[row],
                label=tuple(labels[row].tolist()),
                lam=float(pairs.lams[row]),
                parents=(int(pairs.first[row]), int(pairs.second[row])),
                seed=self.plan.seed,
                epoch=epoch,
                index=int(pairs.index[row]),
                aligner=self.fingerprint,
            )
            for row in range(len(pairs))
        ]
