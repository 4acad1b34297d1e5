"""The collator: the user's own, which during training also gets mixed rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from mixup_hf import errors
from mixup_hf.config import check_mix_ratio
from mixup_hf.data.targets import PROBLEM_TYPES, REGRESSION, SINGLE_LABEL
from mixup_hf.data.text_pairs import split_sides
from mixup_hf.types import MixedExample

Features = list[dict[str, Any]]
Collator = Callable[[Features], Any]
LABEL_KEYS = ("labels", "label", "label_ids")


class MixupCollator:
    """Wraps a collator; the same for evaluation, with mixed rows for training.

    Called as it is, it does what the wrapped collator does: evaluation and prediction see nothing
    else. `MixupCallback` installs a `MixingCollator` on the train loader alone.

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
        mix_ratio: Share of mixed rows among all training rows, in [0, 1): for every real row,
            `mix_ratio / (1 - mix_ratio)` mixed rows are added on average, for any batch size.
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


class _PaddingCollator:
    """Pads what the tokenizer makes, and drops columns no model takes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.pad = DataCollatorWithPadding(tokenizer)
        self.kept = {*tokenizer.model_input_names, *LABEL_KEYS}

    def __call__(self, features: Features) -> Any:
        kept = [{key: row[key] for key in row if key in self.kept} for row in features]
        return self.pad(kept)
