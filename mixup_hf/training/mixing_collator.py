"""The training side of the collator: real rows first, then generated rows from the pool."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import get_worker_info

from mixup_hf import errors
from mixup_hf.data.targets import REGRESSION, SINGLE_LABEL
from mixup_hf.training.batch_checks import check_batch
from mixup_hf.training.collator import LABEL_KEYS, Features, MixupCollator
from mixup_hf.training.curriculum import RealRows
from mixup_hf.training.loss import smooth
from mixup_hf.training.pool import MixupPool, PoolState
from mixup_hf.training.schedule import Schedule
from mixup_hf.types import MixedExample

SOFT_LABELS = "soft_labels"
POOL_ROWS = "mixup_rows"
ROW_WEIGHTS = "mixup_weights"
REAL_ROW = -1
_IGNORED = -100.0  # in labels, by the Trainer
Drawn = list[tuple[int, MixedExample]]
Rows = Sequence[MixedExample]


class MixingCollator:
    """What the train loader calls: real rows first, then the generated rows of the batch.

    Which rows a batch gets follows from its number in the epoch. The main process counts the
    batches it collates; worker k of w collates batches k, k + w, k + 2w, ..., since a DataLoader
    hands them out in turn. Counting begins anew whenever the pool begins an epoch.

    Args:
        plain: The collator whose batches are extended.
        pool: Where generated rows come from.
        schedule: Which rows each batch draws.
        fill: Training rows for the places that the curriculum leaves empty; None: no rows.
    """

    fill: RealRows | None = None

    def __init__(
        self,
        plain: MixupCollator,
        pool: MixupPool,
        schedule: Schedule,
        fill: RealRows | None = None,
    ) -> None:
        self.plain = plain
        self.pool = pool
        self.schedule = schedule
        self.fill = fill
        self._serial = -1
        self._collated = 0

    def __call__(self, features: Features) -> Any:
        """Collate real rows and the generated rows of this batch."""
        plain = self.plain
        if plain.problem_type == SINGLE_LABEL:
            _refuse_vector_labels(features[0])
        drawn, filling = self._draw(features)
        mixed = [row for _, row in drawn]
        added = plain.mixed_features([*filling, *mixed], like=features[0])
        batch = self._collate(features, added)
        alike = [REAL_ROW] * (len(features) + len(filling))
        batch[POOL_ROWS] = torch.tensor(alike + [at for at, _ in drawn])
        put = self._put_classes if plain.problem_type == SINGLE_LABEL else self._put_values
        targets = put(batch, filling, mixed)
        if plain.checks_batches:
            check_batch(batch, targets, features, plain)
        return batch

    def _draw(self, real: Features) -> tuple[Drawn, list[MixedExample]]:
        """The generated rows of this batch, and the training rows in the place of others."""
        now = self.pool.state
        number = self._next_batch(now)
        batch = (now.epoch, number, len(real))
        drawn = self.pool.draw(self.schedule.span(*batch)) if number < now.stop_batch else []
        if self.fill is None or now.epoch < 0:
            return drawn, []
        return drawn, self.fill.at(self.schedule.left_out(*batch))

    def _next_batch(self, now: PoolState) -> int:
        if now.serial != self._serial:
            self._serial, self._collated = now.serial, 0
        worker = get_worker_info()
        place, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        number = now.first_batch + self._collated * count + place
        self._collated += 1
        return number

    def _put_classes(self, batch: Any, filling: Rows, mixed: Rows) -> Tensor:
        """Class indices and soft labels of a batch of R rows; returns the indices (R, C), one-hot.

        Those of rows that were added do not come from their features: a collator may read labels
        from a column that has only a constant for them.
        """
        plain = self.plain
        hard = _labels_of(batch, len(batch[POOL_ROWS])).clone()
        for at, row in enumerate([*filling, *mixed], start=len(hard) - len(filling) - len(mixed)):
            hard[at] = row.hard_label
        batch["labels"] = hard
        if hard.min() < 0 or hard.max() >= plain.num_labels:
            raise errors.bad(
                "labels",
                f"lie in 0..{plain.num_labels - 1} (num_labels = {plain.num_labels})",
                sorted(set(hard.tolist())),
                "Set `num_labels` to the number of classes.",
            )
        targets = F.one_hot(hard, plain.num_labels).float()
        key = "labels" if plain.label_format == "labels" else SOFT_LABELS
        batch[key] = self._soft(targets, mixed)
        return targets

    def _put_values(self, batch: Any, filling: Rows, mixed: Rows) -> Tensor:
        """Targets and weights of a batch of R rows with several labels each, or numbers.

        Returns the targets (R, C). The Trainer counts what is not -100 in `labels`, so that number
        is moved there to the next one; the loss reads the soft labels.
        """
        plain, rows = self.plain, len(batch[POOL_ROWS])
        values = torch.as_tensor(batch["labels"]).float().reshape(rows, -1)
        if values.shape[1] != plain.num_labels:
            raise errors.bad("labels", f"be of shape (R, {plain.num_labels})", tuple(values.shape))
        weights = torch.ones(rows)
        for at, row in enumerate([*filling, *mixed], start=rows - len(filling) - len(mixed)):
            values[at] = torch.tensor(row.label)
            if at >= rows - len(mixed):
                weights[at] = plain.mixed_weight * row.weight
        shown = torch.where(values == _IGNORED, values.nextafter(torch.zeros(())), values)
        batch["labels"] = shown.squeeze(-1) if plain.problem_type == REGRESSION else shown
        batch[SOFT_LABELS], batch[ROW_WEIGHTS] = values, weights
        return values

    def _collate(self, real: Features, mixed: Features) -> Any:
        try:
            return self.plain.collate(real + mixed)
        except ValueError as error:
            lengths = {len(row.get("input_ids", ())) for row in real + mixed}
            if len(lengths) < 2 or any(isinstance(real[0].get(key), str) for key in LABEL_KEYS):
                raise  # as without mixing
            raise errors.InvalidInput(
                f"The collator could not put real and mixed rows into one batch ({error}). Mixed "
                "rows are of any length: it must pad, as DataCollatorWithPadding does."
            ) from error

    def _soft(self, targets: Tensor, mixed: Rows) -> Tensor:
        soft, first = targets.clone(), len(targets) - len(mixed)
        for row, example in enumerate(mixed, start=first):
            soft[row] = torch.tensor(example.label) * example.weight
        soft = smooth(soft, self.plain.label_smoothing)
        soft[first:] *= self.plain.mixed_weight
        return soft


class SeenRows:
    """The rows of a train loader as its collator sees them, without the columns it drops.

    Args:
        loader: The train loader, as accelerate prepared it.
    """

    def __init__(self, loader: Any) -> None:
        self._rows = loader.dataset
        # For what is no `datasets.Dataset`, the Trainer drops columns in front of the collator.
        self._seen = getattr(loader.base_dataloader.collate_fn, "_remove_columns", None)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Each row, by column."""
        return iter(self._rows) if self._seen is None else map(self._seen, self._rows)

    def some(self, count: int) -> list[Mapping[str, Any]]:
        """At most so many rows from all over the training set; none of a stream."""
        if not hasattr(self._rows, "__len__"):
            return []
        total = len(self._rows)
        places = sorted({at * (total - 1) // max(1, count - 1) for at in range(min(count, total))})
        rows = [self._rows[at] for at in places]
        return rows if self._seen is None else list(map(self._seen, rows))


class Installed:
    """A `MixingCollator` in the place of the collator of a train loader.

    Args:
        loader: The train loader, as accelerate prepared it.
        mixing: What it calls until `remove`.
    """

    def __init__(self, loader: Any, mixing: MixingCollator) -> None:
        self.loader = loader
        self._original = loader.base_dataloader.collate_fn
        collate: Any = mixing
        if hasattr(self._original, "data_collator"):  # RemoveColumnsCollator around ours
            collate = copy.copy(self._original)
            collate.data_collator = mixing
        loader.base_dataloader.collate_fn = collate

    def remove(self) -> None:
        """Leave the loader as it was."""
        self.loader.base_dataloader.collate_fn = self._original


def _refuse_vector_labels(feature: Mapping[str, Any]) -> None:
    for key in LABEL_KEYS:
        label = feature.get(key)
        if label is not None and not isinstance(label, str) and torch.as_tensor(label).ndim > 0:
            raise errors.bad(
                key,
                "be one class index a row",
                label,
                "Give InversedMixup the labels as lists, for multi-label classification; labels of "
                "single tokens cannot be mixed.",
            )


def _labels_of(batch: Mapping[str, Any], rows: int) -> Tensor:
    labels = batch.get("labels")
    if not isinstance(labels, Tensor) or labels.shape != (rows,) or labels.is_floating_point():
        got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise errors.InvalidInput(
            f"The collator must put class indices of shape ({rows},) under 'labels', but got "
            f"{got}. This collator mixes single-label classification. For other tasks give "
            "InversedMixup the labels: lists for multi-label, floats for regression."
        )
    return labels
