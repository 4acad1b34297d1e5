"""What a page works on: models, the user's rows, and the rows under review."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mixup_hf import errors
from mixup_hf.config import MixupConfig
from mixup_hf.explorer.labelled_set import LabelledSet, Votes
from mixup_hf.explorer.projection import Projection, draw_rows, project
from mixup_hf.explorer.review import Draft, Review
from mixup_hf.explorer.sweep import Sweep, sweep
from mixup_hf.inverter.model import Inverter
from mixup_hf.training.mix_settings import decode_settings, matches_length

EXAMPLE = ("Dollar slides ahead of New Year", "Henman overcomes rival Rusedski")
_REMEMBERED = 64  # sweeps: a page that is loaded again shows them at once
_ON_THE_MAP = 400  # real rows
_FREE_NAMES = 1000


@dataclass(frozen=True)
class Map:
    """Real and generated rows with their places.

    Attributes:
        projection: The places.
        rows: Numbers of the real rows (n).
        drafts: The generated rows (m).
    """

    projection: Projection
    rows: list[int]
    drafts: list[Draft]


class Session:
    """One start of the explorer. Its rows under review outlive a page that is loaded again.

    Args:
        inverter: Decodes.
        config: How sentences are sampled.
        data: The user's rows; None without.
        output: File that kept rows go to. Default: `kept.jsonl` in the working directory, or the
            first of `kept-2.jsonl`, ... that does not exist yet.

    Attributes:
        review: The rows under review; None without data.
    """

    def __init__(
        self,
        inverter: Inverter,
        config: MixupConfig,
        data: LabelledSet | None = None,
        output: str | Path | None = None,
    ) -> None:
        self.inverter, self.config, self.data = inverter, config, data
        self.review = None if data is None else Review(data)
        self._output = None if output is None else Path(output)
        self._sweeps: OrderedDict[tuple[str, str, int, int], Sweep] = OrderedDict()

    @property
    def output(self) -> Path:
        """The file that kept rows go to."""
        if self._output is None:
            names = ("kept.jsonl", *(f"kept-{number}.jsonl" for number in range(2, _FREE_NAMES)))
            self._output = next(path for name in names if not (path := Path.cwd() / name).exists())
        return self._output

    def texts(self, number: int) -> tuple[str, str]:
        """Two texts to begin with; others for each number, if there is a data set."""
        return EXAMPLE if self.data is None else self.data.pair(number)

    def sweep(self, first: str, second: str, candidates: int, seed: int) -> Sweep:
        """Decode two texts in every ratio, as in training; answered from memory the next time.

        Raises:
            InvalidInput: A text is empty, or a number is out of range.
        """
        first, second = first.strip(), second.strip()
        if not first or not second:
            raise errors.InvalidInput("Both texts are needed: one of them is empty.")
        errors.in_range("candidates", candidates, 1, 8)
        errors.at_least("seed", seed, 0)
        key = (first, second, candidates, seed)
        if key not in self._sweeps:
            self._sweeps[key] = self._decode(first, second, candidates, seed)
            if len(self._sweeps) > _REMEMBERED:
                self._sweeps.popitem(last=False)
        return self._sweeps[key]

    def _decode(self, first: str, second: str, candidates: int, seed: int) -> Sweep:
        rows = [] if self.data is None else self.data.texts
        return sweep(
            self.inverter,
            first,
            second,
            decode_settings(replace(self.config, num_candidates=candidates), rows),
            hints=self.config.hints,
            match_length=matches_length(self.inverter, self.config),
            seed=seed,
        )

    def votes(self, texts: Sequence[str], *, fit: bool = False) -> Votes:
        """What judges say of texts, and the committee if it has been fitted, or is to be now.

        Args:
            texts: Sentences (n).
            fit: Fit the committee if it has not been yet, which takes as long as a short training.
        """
        if self.data is None:
            return Votes()
        ask = self.data.has_committee and (fit or self.data.committee_ready)
        return self.data.vote(texts) if ask else self.data.judge(texts)

    def map(self) -> Map:
        """A map of the rows: a sample of the real ones, all parents, and the generated ones.

        Raises:
            InvalidState: There is no data set.
            InvalidInput: It has fewer than three rows.
        """
        data, review = self.data, self.review
        if data is None or review is None:
            raise errors.InvalidState("A map needs a data set.")
        drafts = list(review.drafts)
        parents = [parent for draft in drafts for parent in draft.row.parents]
        rows = draw_rows(len(data.texts), _ON_THE_MAP, parents, data.mixup.seed)
        texts = [draft.row.text for draft in drafts]
        real = data.embeddings[rows]
        made = data.mixup.encoder.encode(texts) if texts else torch.zeros(0, real.shape[1])
        return Map(project(real, made), rows, drafts)
