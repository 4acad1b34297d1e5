"""The collator: the user's own, which during training also gets mixed rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from mixup_hf import errors
from mixup_hf.config import check_mix_ratio
from mixup_hf.data.targets import PROBLEM_TYPES, REGRESSION, SINGLE_LABEL
from mixup_hf.data.text_pairs import split_sides
from mixup_hf.training.loss import smooth
from mixup_hf.training.pool import MixupPool
from mixup_hf.types import MixedExample

Features = list[dict[str, Any]]
Collator = Callable[[Features], Any]
LABEL_KEYS = ("labels", "label", "label_ids")
SOFT_LABELS = "soft_labels"
POOL_ROWS = "mixup_rows"
ROW_WEIGHTS = "mixup_weights"
REAL_ROW = -1


class MixupCollator:
    """Wraps a collator; the same for evaluation, with mixed rows for training.

    Called as it is, it does what the wrapped collator does: evaluation and prediction see nothing
    else. `MixupCallback` installs `mixing()` on the train loader alone.

    A mixing batch holds whatever the wrapped collator makes of real rows followed by mixed rows,
    with R rows in all, and

    - `labels` (R,), int64: class indices; of mixed rows the class with the largest share. The
      Trainer counts rows by them.
    - `soft_labels` (R, C), float32: one-hot for real rows. The loss uses these.
    - `mixup_rows` (R,), int64: position in the pool, -1 for real rows.

    The last two never reach the model: the callback's hook takes them out. With several labels a
    row, or numbers to predict, `soft_labels` holds these (R, C), `labels` only counts rows, and
    `mixup_weights` (R,) weighs them in the loss. With
    `label_format="labels"`, for `Trainer(compute_loss_func=soft_cross_entropy)`, the batch holds
    the soft labels as `labels`, and nothing else is added but `mixup_rows`.

    Args:
        tokenizer: Tokenizes mixed rows as the training set was tokenized.
        num_labels: C; 1 for regression.
        problem_type: What labels are, as transformers' configs name it: one class a row, several
            (`multi_label_classification`), or numbers (`regression`).
        base_collator: The user's collator. Default: `DataCollatorWithPadding`, which is given only
            what the tokenizer makes, and labels.
        label2id: Class name to index, for features whose labels are names.
        mix_ratio: Share of mixed rows in a training batch, in [0, 1). For b real rows,
            `round(b * mix_ratio / (1 - mix_ratio))` mixed rows are added.
        mixed_weight: Weight of a mixed row in the loss; a real row weighs 1.
        max_length: Mixed rows are cut to this many tokens; default: the tokenizer's maximum.
        text_column: Features that hold their text under this name get it for mixed rows too.
        extra_columns: Values for mixed rows of columns that only real rows can have.
        label_format: Where soft labels go, see above.
        label_smoothing: Applied to the soft labels; the callback sets it from the Trainer's
            `label_smoothing_factor`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        num_labels: int,
        problem_type: str = SINGLE_LABEL,
        base_collator: Collator | None = None,
        label2id: Mapping[str, int] | None = None,
        mix_ratio: float = 0.5,
        mixed_weight: float = 1.0,
        max_length: int | None = None,
        text_column: str = "text",
        extra_columns: Mapping[str, Any] | None = None,
        label_format: Literal["soft_labels", "labels"] = "soft_labels",
    ) -> None:
        errors.one_of("problem_type", problem_type, PROBLEM_TYPES)
        errors.at_least("num_labels", num_labels, 1 if problem_type == REGRESSION else 2)
        if problem_type != SINGLE_LABEL and label_format == "labels":
            raise errors.InvalidInput(
                f"`label_format` = 'labels' is for cross entropy, but `problem_type` is "
                f"{problem_type!r}. Leave `explicit_loss` off: the callback makes the loss."
            )
        self.problem_type = problem_type
        check_mix_ratio(mix_ratio)
        errors.positive("mixed_weight", mixed_weight)
        errors.one_of("label_format", label_format, ("soft_labels", "labels"))
        self.tokenizer = tokenizer
        self.num_labels = num_labels
        self.base_collator = base_collator or _PaddingCollator(tokenizer)
        self.label2id = dict(label2id or {})
        self.mix_ratio = mix_ratio
        self.mixed_weight = mixed_weight
        self.max_length = max_length
        self.text_column = text_column
        self.extra_columns = dict(extra_columns or {})
        self.label_format = label_format
        self.label_smoothing = 0.0

    def __call__(self, features: Features) -> Any:
        """Collate real rows only."""
        return self.base_collator(self._with_indices(features))

    def mixing(self, pool: MixupPool) -> MixingCollator:
        """The training side of this collator, which adds rows drawn from `pool`."""
        return MixingCollator(self, pool)

    def num_mixed(self, num_real: int) -> int:
        """Mixed rows added to a batch of `num_real` real rows."""
        return round(num_real * self.mix_ratio / (1 - self.mix_ratio))

    def mixed_feature(self, row: MixedExample, like: Mapping[str, Any]) -> dict[str, Any]:
        """A mixed row with the columns of the real feature `like`."""
        sides = split_sides(row.text)
        encoded = self.tokenizer(*sides, truncation=True, max_length=self.max_length)
        known: dict[str, Any] = {self.text_column: row.text, **encoded, **self.extra_columns}
        known |= {key: self._label_of(row) for key in LABEL_KEYS if key in like}
        unknown = sorted(set(like) - set(known))
        if unknown:
            raise errors.InvalidInput(
                f"The training rows carry {unknown}, which a mixed row has no value for. Drop "
                "these columns (the Trainer does so with `remove_unused_columns=True`), or say "
                f"what mixed rows get: MixupCollator(..., extra_columns={{{unknown[0]!r}: ...}})."
            )
        return {key: known[key] for key in like}

    def _label_of(self, row: MixedExample) -> int | float | list[float]:
        if self.problem_type == SINGLE_LABEL:
            return row.hard_label
        return row.label[0] if self.problem_type == REGRESSION else list(row.label)

    def _with_indices(self, features: Features) -> Features:
        """Features whose class names are replaced by indices; others are passed on untouched."""
        if not self.label2id:
            return features
        return [
            {key: self._index(value) if key in LABEL_KEYS else value for key, value in row.items()}
            for row in features
        ]

    def _index(self, label: Any) -> Any:
        if not isinstance(label, str):
            return label
        if label not in self.label2id:
            raise errors.bad("label", f"be one of {sorted(self.label2id)}", label)
        return self.label2id[label]


class MixingCollator:
    """What the train loader calls: real rows first, then mixed rows.

    Args:
        plain: The collator whose batches are extended.
        pool: Where mixed rows come from.
    """

    def __init__(self, plain: MixupCollator, pool: MixupPool) -> None:
        self.plain = plain
        self.pool = pool

    def __call__(self, features: Features) -> Any:
        """Collate real rows and the mixed rows drawn for them."""
        plain = self.plain
        count = plain.num_mixed(len(features))
        if plain.problem_type == SINGLE_LABEL:
            _refuse_vector_labels(features[0])
        real = plain._with_indices(features)
        drawn = self.pool.draw([_key(row) for row in real], count) if count else []
        mixed = [plain.mixed_feature(row, like=real[0]) for _, row in drawn]
        batch = self._collate(real, mixed)
        batch[POOL_ROWS] = torch.tensor([REAL_ROW] * len(real) + [at for at, _ in drawn])
        if plain.problem_type == SINGLE_LABEL:
            self._put_classes(batch, [row for _, row in drawn])
        else:
            self._put_values(batch, [row for _, row in drawn])
        return batch

    def _put_classes(self, batch: Any, mixed: Sequence[MixedExample]) -> None:
        """Class indices and soft labels of a batch of R rows."""
        plain = self.plain
        hard = _labels_of(batch, len(batch[POOL_ROWS]))
        if hard.min() < 0 or hard.max() >= plain.num_labels:
            raise errors.bad(
                "labels",
                f"lie in 0..{plain.num_labels - 1} (num_labels = {plain.num_labels})",
                sorted(set(hard.tolist())),
                "Set `num_labels` to the number of classes.",
            )
        soft = self._soft(hard, mixed)
        if plain.label_format == "labels":
            batch["labels"] = soft
        else:
            batch[SOFT_LABELS] = soft

    def _put_values(self, batch: Any, mixed: Sequence[MixedExample]) -> None:
        """Targets and weights of a batch of R rows with several labels each, or numbers."""
        plain, rows = self.plain, len(batch[POOL_ROWS])
        values = torch.as_tensor(batch["labels"]).float().reshape(rows, -1)
        if values.shape[1] != plain.num_labels:
            raise errors.bad("labels", f"be of shape (R, {plain.num_labels})", tuple(values.shape))
        weights = torch.ones(rows)
        for at, row in enumerate(mixed, start=rows - len(mixed)):
            values[at] = torch.tensor(row.label)
            weights[at] = plain.mixed_weight * row.weight
        batch["labels"] = torch.zeros(rows, dtype=torch.int64)  # the Trainer counts rows by it
        batch[SOFT_LABELS], batch[ROW_WEIGHTS] = values, weights

    def _collate(self, real: Features, mixed: Features) -> Any:
        try:
            return self.plain.base_collator(real + mixed)
        except ValueError as error:
            lengths = {len(row.get("input_ids", ())) for row in real + mixed}
            if len(lengths) < 2:
                raise
            raise errors.InvalidInput(
                f"The collator could not put real and mixed rows into one batch ({error}). Mixed "
                "rows are of any length: it must pad, as DataCollatorWithPadding does."
            ) from error

    def _soft(self, hard: Tensor, mixed: Sequence[MixedExample]) -> Tensor:
        soft = F.one_hot(hard, self.plain.num_labels).float()
        for row, example in enumerate(mixed, start=len(hard) - len(mixed)):
            soft[row] = torch.tensor(example.label) * example.weight
        soft = smooth(soft, self.plain.label_smoothing)
        soft[len(hard) - len(mixed) :] *= self.plain.mixed_weight
        return soft


class _PaddingCollator:
    """Pads what the tokenizer makes, and drops columns no model takes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.pad = DataCollatorWithPadding(tokenizer)
        self.kept = {*tokenizer.model_input_names, *LABEL_KEYS}

    def __call__(self, features: Features) -> Any:
        kept = [{key: row[key] for key in row if key in self.kept} for row in features]
        return self.pad(kept)


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


def _key(feature: Mapping[str, Any]) -> bytes:
    """What identifies a real row: its tokens, else all it has."""
    tokens = feature.get("input_ids")
    if tokens is None:
        return repr(sorted(feature.items())).encode()
    return repr(torch.as_tensor(tokens).tolist()).encode()
