"""What can be set about a whole fine-tuning run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mixup_hf import errors
from mixup_hf._fields import help_
from mixup_hf.config.mixing import MixupConfig


@dataclass(frozen=True)
class DataConfig:
    """The labelled texts: files, or a data set by name."""

    __pydantic_config__ = {"extra": "forbid"}

    train_file: str | None = field(default=None, metadata=help_("csv, jsonl or parquet."))
    test_file: str | None = field(default=None, metadata=help_("csv, jsonl or parquet."))
    dataset: str | None = field(default=None, metadata=help_("bbc_headlines, or a Hub id."))
    name: str | None = field(default=None, metadata=help_("Configuration of a Hub data set."))
    revision: str | None = field(default=None, metadata=help_("Hub revision of the data set."))
    train_split: str = field(default="train", metadata=help_("Split of `dataset` to train on."))
    test_split: str = field(default="test", metadata=help_("Split of `dataset` for the test."))
    validation_file: str | None = field(default=None, metadata=help_("Validation rows."))
    validation_split: str | None = field(default=None, metadata=help_("Split of `dataset`."))
    validation_share: float | None = field(default=None, metadata=help_("Share held out."))
    validation_rows_per_class: int | None = field(default=None, metadata=help_("Rows per class."))
    text_column: str = field(default="text", metadata=help_("Column that holds the text."))
    text_pair_column: str | None = field(
        default=None, metadata=help_("Column of a second text, where rows are pairs of texts.")
    )
    label_column: str = field(default="label", metadata=help_("Column that holds the label."))
    problem_type: str | None = field(default=None, metadata=help_("What the labels are."))
    shots: int | None = field(default=None, metadata=help_("Rows per class, drawn with `seed`."))
    max_length: int = field(default=128, metadata=help_("Longest text of the classifier, tokens."))

    def __post_init__(self) -> None:
        files = (self.train_file is not None, self.test_file is not None)
        if (self.dataset is None) != all(files) or (self.dataset is not None and any(files)):
            raise errors.InvalidInput(
                "`data` must give either `dataset`, or both `train_file` and `test_file`, but got "
                f"dataset={self.dataset!r}, train_file={self.train_file!r}, "
                f"test_file={self.test_file!r}."
            )
        if self.shots is not None:
            errors.at_least("data.shots", self.shots, 1)
        errors.at_least("data.max_length", self.max_length, 4)

    @property
    def has_validation(self) -> bool:
        """Whether there are validation rows."""
        given = (self.validation_file, self.validation_split)
        return any(given) or bool(self.validation_share or self.validation_rows_per_class)


def check_no_auto_off(mixup: MixupConfig) -> None:
    """Raise `ValueError` for `auto_off` where there is a test split only: it must steer nothing."""
    if mixup.auto_off:
        raise errors.InvalidInput(
            "`mixup.auto_off` would let the test split decide when mixing stops, and so spoil its "
            "scores. Use it in a script of your own, whose Trainer has a development set."
        )


@dataclass(frozen=True)
class FinetuneConfig:
    """A whole fine-tuning run; baseline and mixup differ only in `mixup`."""

    __pydantic_config__ = {"extra": "forbid"}

    data: DataConfig = field(metadata=help_("The labelled texts."))
    output_dir: str = field(metadata=help_("Where metrics, sentences and checkpoints go."))
    model: str = field(default="all-minilm-l6-v2", metadata=help_("Classifier to fine-tune."))
    model_revision: str | None = field(default=None, metadata=help_("Hub revision of the model."))
    seed: int = field(default=0, metadata=help_("Seed of the shots and of training."))
    compare: bool = field(default=False, metadata=help_("Also train a baseline."))
    save_model: bool = field(default=True, metadata=help_("Save the model and its tokenizer."))
    training: dict[str, Any] = field(
        default_factory=dict, metadata=help_("Any of transformers' TrainingArguments.")
    )
    mixup: MixupConfig = field(default_factory=MixupConfig, metadata=help_("What is mixed, how."))

    def __post_init__(self) -> None:
        errors.at_least("seed", self.seed, 0)
        for name in ("output_dir", "seed"):
            if name in self.training:
                raise errors.InvalidInput(
                    f"Set `{name}` at the top of the config, not in `training`."
                )
        if not self.data.has_validation:
            check_no_auto_off(self.mixup)
        for name, value in self.training.items():
            if value in ("on", "off"):  # to TrainingArguments any word is true
                raise errors.bad(f"training.{name}", "be true or false", value)
