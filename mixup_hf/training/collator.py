"""The user's collator, with mixed rows added during training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch.utils.data import get_worker_info
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from mixup_hf import errors
from mixup_hf.config import check_mix_ratio
from mixup_hf.data.targets import PROBLEM_TYPES, REGRESSION, SINGLE_LABEL
from mixup_hf.data.text_pairs import split_sides
from mixup_hf.training.preprocess import Preprocess, TokenizerPreprocess, features_of
from mixup_hf.types import MixedExample

Features = list[dict[str, Any]]
Collator = Callable[[Features], Any]
LABEL_KEYS = ("labels", "label", "label_ids")


class MixupCollator:
    """Wraps a collator: unchanged in evaluation, with mixed rows added in training.

    Called directly, it does what the wrapped collator does, so evaluation and prediction never see
    a mixed row. `MixupCallback` puts a `MixingCollator` on the train loader only.

    A mixing batch is what the wrapped collator makes of real rows followed by mixed rows, R rows in
    all, and

    - `labels` (R,), int64: class indices; for a mixed row, the class with the largest share. The
      Trainer counts rows by them.
    - `soft_labels` (R, C), float32: one-hot for real rows. The loss uses these.
    - `mixup_rows` (R,), int64: position in the pool, -1 for real rows.

    The last two never reach the model: the callback's hook removes them. For multi-label
    classification and regression, `soft_labels` and `labels` hold the targets, (R, C) or (R,) with
    one output, and `mixup_weights` (R,) weights the rows in the loss. With
    `label_format="labels"`, for a Trainer whose own loss takes soft labels, the batch holds the
    soft labels as `labels`, and only `mixup_rows` is added.

    Args:
        tokenizer: The classifier's tokenizer.
        num_labels: C; 1 for regression.
        problem_type: As in transformers' configs: `single_label_classification`,
            `multi_label_classification` or `regression`.
        base_collator: The user's collator. Default: `DataCollatorWithPadding`, given only what the
            tokenizer makes, and labels.
        label2id: Class name to index, for features whose labels are names. Collators of
            transformers, which cannot read names, are given indices; others see what is there.
        mix_ratio: Share of mixed rows among all training rows, in [0, 1): for every real row,
            `mix_ratio / (1 - mix_ratio)` mixed rows are added on average, for any batch size.
        mixed_weight: Weight of a mixed row in the loss; that of a real row is 1.
        max_length: Truncate mixed rows to this many tokens; see `TokenizerPreprocess`.
        preprocess: `preprocess(texts, text_pairs=None)`, which makes the features of mixed rows
            exactly as those of the training set were made: prefixes, templates, truncation. It
            returns a list of feature dicts, or what a tokenizer returns. Default: the tokenizer.
        text_column: A training feature with this column gets the mixed row's text in it.
        text_pair_column: The same for the second text.
        label_column: The same for the label, beside `labels`, `label` and `label_ids`.
        extra_columns: Values that added rows get in columns that only real rows can have: mixed
            rows, and the training rows that a curriculum puts in their place.
        label_format: Where soft labels go, see above.

    Attributes:
        label_smoothing: Applied to the soft labels; the callback sets it from the Trainer's
            `label_smoothing_factor`.
        has_callback: Whether a callback will install mixing; a collator without one warns once.
        checks_batches: Whether labels and order of collated rows are compared with their features.
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
        preprocess: Preprocess | None = None,
        text_column: str = "text",
        text_pair_column: str = "text_pair",
        label_column: str | None = None,
        extra_columns: Mapping[str, Any] | None = None,
        label_format: Literal["soft_labels", "labels"] = "soft_labels",
    ) -> None:
        errors.one_of("problem_type", problem_type, PROBLEM_TYPES)
        errors.at_least("num_labels", num_labels, 1 if problem_type == REGRESSION else 2)
        if problem_type != SINGLE_LABEL and label_format == "labels":
            raise errors.InvalidInput(
                f"`label_format` = 'labels' is for cross entropy, but `problem_type` is "
                f"{problem_type!r}. Leave `explicit_loss` out: the plugin computes the loss."
            )
        if preprocess is not None and max_length is not None:
            raise errors.InvalidInput(
                f"`max_length` = {max_length} is for the default preprocessing. With `preprocess` "
                "given, truncate in it."
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
        self.preprocess = preprocess or TokenizerPreprocess(tokenizer, max_length)
        self.text_column, self.text_pair_column = text_column, text_pair_column
        self.label_keys = (*LABEL_KEYS, *((label_column,) if label_column else ()))
        self.extra_columns = dict(extra_columns or {})
        for name in sorted({*self.label_keys} & {*self.extra_columns}):
            rule = f"leave out {name!r}, which holds labels: those of mixed rows are known"
            raise errors.bad("extra_columns", rule, self.extra_columns[name])
        for name in sorted({text_column, text_pair_column} & {*self.extra_columns}):
            rule = f"leave out {name!r}, which holds texts: mixed rows have their own"
            raise errors.bad("extra_columns", rule, self.extra_columns[name])
        self.label_format = label_format
        self.label_smoothing = 0.0
        self.has_callback = False
        self.checks_batches = True
        self._warned = False

    def __call__(self, features: Features) -> Any:
        """Collate real rows only."""
        if self.mix_ratio > 0 and not (self.has_callback or self._warned):
            self._warn_without_callback()
        return self.collate(features)

    def collate(self, features: Features) -> Any:
        """What the wrapped collator makes of features: all of them as if they were real."""
        if self.label2id and not _is_users(self.base_collator):
            features = [self._with_index(row) for row in features]
        return self.base_collator(features)

    def mixed_features(
        self, rows: Sequence[MixedExample], like: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Mixed rows as features, each with the columns of the real feature `like`."""
        encoded = features_of(self.preprocess, [row.text for row in rows])
        made = []
        for row, feature in zip(rows, encoded, strict=True):
            texts = zip(
                (self.text_column, self.text_pair_column), split_sides(row.text), strict=False
            )
            known: dict[str, Any] = {**dict(texts), **feature, **self.extra_columns}
            known |= {key: self._label_of(row, like[key]) for key in self.label_keys if key in like}
            _require_known(like, known)
            made.append({key: known[key] for key in like})
        return made

    def _label_of(self, row: MixedExample, like: Any) -> int | float | str | list[float]:
        """A row's label, as the real one `like`: of `label_column`, it may be a class's name."""
        if self.problem_type == SINGLE_LABEL:
            named = isinstance(like, str) and self.label2id
            return list(self.label2id)[row.hard_label] if named else row.hard_label
        return row.label[0] if self.problem_type == REGRESSION else list(row.label)

    def _with_index(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A feature with the class index in the place of a class name."""
        named = {key for key in LABEL_KEYS if isinstance(row.get(key), str)}
        return {key: self._index(row[key]) if key in named else row[key] for key in row}

    def _index(self, name: str) -> int:
        if name not in self.label2id:
            raise errors.bad("label", f"be one of {sorted(self.label2id)}", name)
        return self.label2id[name]

    def _warn_without_callback(self) -> None:
        """Warn once: without its callback this collator never mixes, and nothing else would tell.

        Not `runtime.warn`: a worker of a data loader must not set up accelerate's state.
        """
        self._warned = True
        worker = get_worker_info()
        if worker is None or worker.id == 0:
            logging.getLogger("mixup_hf").warning(
                "This MixupCollator has no MixupCallback, so it collates real rows only: nothing "
                "is mixed. With a Trainer: mixup.attach(trainer), or Trainer(..., "
                "**mixup.trainer_kwargs(tokenizer, callbacks=[...])), which returns both. In a "
                "loop of your own: for inputs, targets in mixup.batches(loader, tokenizer, "
                "epoch=epoch)."
            )


def _require_known(like: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    unknown = sorted(set(like) - set(known))
    if unknown:
        raise errors.InvalidInput(
            f"The training rows have the columns {unknown}, for which a mixed row has no value. "
            "If one holds the text, name it with `text_column`; labels, with `label_column`. Drop "
            "others (the Trainer does with `remove_unused_columns=True`), return them from "
            "`preprocess`, or give a constant in attach() or trainer_kwargs(): "
            f"extra_columns={{{unknown[0]!r}: ...}}."
        )


class _PaddingCollator:
    """Pads what the tokenizer makes, and drops the other columns."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.pad = DataCollatorWithPadding(tokenizer)
        self.kept = {*tokenizer.model_input_names, *LABEL_KEYS}

    def __call__(self, features: Features) -> Any:
        kept = [{key: row[key] for key in row if key in self.kept} for row in features]
        return self.pad(kept)


def _is_users(collator: Collator) -> bool:
    """Whether the collator is a script's own, which may read class names, or makes indices."""
    while isinstance(collator, partial):
        collator = collator.func
    package = str(getattr(collator, "__module__", "")).partition(".")[0]
    return not (isinstance(collator, _PaddingCollator) or package == "transformers")
