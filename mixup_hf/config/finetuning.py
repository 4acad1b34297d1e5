"""What can be set about a whole fine-tuning run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mixup_hf import errors
from mixup_hf.config._base import Number, Whole, settings
from mixup_hf.config._mixing_rules import check_unlabeled
from mixup_hf.config.mixing import MixupConfig

# As transformers' configs name them.
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
_VALIDATION = (
    "validation_file",
    "validation_split",
    "validation_share",
    "validation_rows_per_class",
)


@settings
class DataConfig:
    """The labelled texts: files, or a data set by name."""

    train_file: str | None = Field(
        default=None, description="Training rows: csv, jsonl or parquet."
    )
    test_file: str | None = Field(default=None, description="Test rows: csv, jsonl or parquet.")
    dataset: str | None = Field(default=None, description="Data set: bbc_headlines, or a Hub id.")
    name: str | None = Field(
        default=None, description="Configuration of a Hub data set, such as sst2."
    )
    revision: str | None = Field(default=None, description="Hub revision of the data set.")
    unlabeled_file: str | None = Field(
        default=None,
        description=(
            "Texts without labels, for the committee to label: one per line (.txt), or csv, jsonl "
            "or parquet with `text_column`."
        ),
    )
    label_descriptions: dict[str, str] | None = Field(
        default=None,
        description="What class names mean, in words. By default the names, made readable.",
    )
    train_split: str = Field(default="train", description="Split of `dataset` to train on.")
    test_split: str = Field(default="test", description="Split of `dataset` for the final test.")
    validation_file: str | None = Field(
        default=None,
        description="Validation rows, which choose the checkpoint: csv, jsonl or parquet.",
    )
    validation_split: str | None = Field(
        default=None, description="Split of `dataset` that chooses the checkpoint."
    )
    validation_share: Number | None = Field(
        default=None, gt=0, lt=1, description="Share of the training rows held out for validation."
    )
    validation_rows_per_class: Whole | None = Field(
        default=None, ge=1, description="Training rows per class held out for validation."
    )
    text_column: str = Field(default="text", description="Column of the text.")
    text_pair_column: str | None = Field(
        default=None, description="Column of the second text, where rows are pairs of texts."
    )
    label_column: str = Field(default="label", description="Column of the label.")
    problem_type: ProblemType | None = Field(
        default=None, description="What the labels are. By default it is inferred from them."
    )
    shots: Whole | None = Field(
        default=None,
        ge=1,
        description="Training rows per class, sampled with `seed`. By default all.",
    )
    max_length: Whole = Field(
        default=128, ge=4, description="Longest text the classifier reads, in tokens."
    )

    def __post_init__(self) -> None:
        files = (self.train_file is not None, self.test_file is not None)
        if (self.dataset is None) != all(files) or (self.dataset is not None and any(files)):
            raise errors.InvalidInput(
                "`data` must give either `dataset`, or both `train_file` and `test_file`, but got "
                f"dataset={self.dataset!r}, train_file={self.train_file!r}, "
                f"test_file={self.test_file!r}."
            )
        given = {name: getattr(self, name) for name in _VALIDATION}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) > 1:
            raise errors.InvalidInput(
                f"`data` must give at most one of {', '.join(_VALIDATION)}, but got {given}."
            )
        if self.validation_split is not None and self.dataset is None:
            raise errors.bad(
                "validation_split",
                "be used with `dataset`",
                self.validation_split,
                "Use `validation_file` with files.",
            )

    @property
    def has_validation(self) -> bool:
        """Whether there are validation rows."""
        return any(getattr(self, name) is not None for name in _VALIDATION)


def check_no_auto_off(mixup: MixupConfig) -> None:
    """Raise `InvalidInput` for `auto_off` where only a test split could be its development set."""
    if mixup.auto_off:
        raise errors.InvalidInput(
            "`mixup.auto_off` would let the test split decide when mixing stops, which spoils the "
            "test scores. Set one of the validation keys of `data`, or leave `auto_off` out."
        )


@settings
class FinetuneConfig:
    """A whole fine-tuning run; baseline and mixup differ only in `mixup`."""

    data: DataConfig = Field(description="The labelled texts.")
    output_dir: str = Field(description="Folder for metrics, sentences and checkpoints.")
    model: str = Field(default="all-minilm-l6-v2", description="Classifier to fine-tune.")
    model_revision: str | None = Field(default=None, description="Hub revision of the model.")
    seed: Whole = Field(default=0, ge=0, description="Seed of the shots and of training.")
    compare: bool = Field(
        default=False,
        description="Also train a baseline for the same steps, and report the difference.",
    )
    save_model: bool = Field(default=True, description="Save the model and its tokenizer.")
    training: dict[str, Any] = Field(
        default_factory=dict, description="Any of transformers' TrainingArguments."
    )
    mixup: MixupConfig = Field(default_factory=MixupConfig, description="What is mixed, and how.")

    def __post_init__(self) -> None:
        for name in ("output_dir", "seed"):
            if name in self.training:
                raise errors.InvalidInput(
                    f"Set `{name}` at the top of the config, not in `training`."
                )
        if not self.data.has_validation:
            check_no_auto_off(self.mixup)
        if self.mixup.enabled:
            given = self.data.unlabeled_file is not None
            check_unlabeled(self.mixup, "data.unlabeled_file", "mixup.", given=given)
        for name, value in self.training.items():
            if value in ("on", "off"):  # TrainingArguments would take any word for true
                raise errors.bad(f"training.{name}", "be true or false", value)
