"""What an experiment compares, on what, how often."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mixup_hf import errors, registry
from mixup_hf.config import (
    DataConfig,
    LoraConfig,
    MixupConfig,
    Named,
    Number,
    Whole,
    check_no_auto_off,
    settings,
)

_SAY_WHICH_RUNS = (
    "sets",
    "arms",
    "variants",
    "shots",
    "seeds",
    "output_dir",
    "baseline",
    "primary",
    "training_of",
)
# What all arms share, or the experiment sets itself.
# Keys of a data set that an experiment has no use for.
_NOT_OF_A_SET = (
    "unlabeled_file",
    "validation_file",
    "validation_split",
    "validation_share",
    "validation_rows_per_class",
)
_NOT_OF_A_VARIANT = (
    "aligner",
    "auto_off",
    "enabled",
    "engine",
    "max_inflight",
    "quantization",
    "refill_every",
    "revision",
    "rows_file",
    "rows_per_refill",
    "seed",
    "server_fallback",
    "server_timeout",
)
_ON_REQUEST = ("oversample_minority", "setfit")
_NAME = re.compile(r"\w[\w .,+=-]*")


Metric = Literal["accuracy", "macro_f1"]


@settings
class PrimaryConfig:
    """The comparison an experiment is made for, written down before it is run."""

    arm: str = Field(default="default", description="The arm that is to help.")
    against: tuple[str, ...] = Field(
        default=("oversample", "label_smoothing", "self_distillation", "contrastive", "setfit"),
        min_length=1,
        description="Its rivals; it is compared with the one of them that is best on average.",
    )
    metric: Metric = Field(default="accuracy", description="What is compared.")

    def __post_init__(self) -> None:
        if self.arm in self.against or len(set(self.against)) < len(self.against):
            raise errors.bad("against", "name other arms, without duplicates", self.against)


@settings
class ExperimentConfig:
    """Arms x data sets x shots x seeds; all arms of a seed share rows, head and steps."""

    sets: dict[str, DataConfig] = Field(min_length=1, description="The data sets, by name.")
    output_dir: str = Field(description="Folder for runs.jsonl and every arm's sentences.")
    arms: tuple[Annotated[str, Named("arm")], ...] = Field(
        default_factory=lambda: tuple(n for n in registry.names("arm") if n not in _ON_REQUEST),
        min_length=1,
        description=(
            "The arms to compare. By default all but oversample_minority, and setfit, which needs "
            "the extra `benchmarks`."
        ),
    )
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Further mixing arms: a name, and keys of `mixup` with their values.",
    )
    baseline: str = Field(
        default="oversample", description="The arm that all others are compared with."
    )
    primary: PrimaryConfig | None = Field(
        default=None, description="The comparison that is shown first. By default none."
    )
    shots: tuple[Annotated[Whole, Field(ge=1)], ...] = Field(
        default=(10,), min_length=1, description="Rows per class, each in turn."
    )
    seeds: tuple[Annotated[Whole, Field(ge=0)], ...] = Field(
        default=(0, 1, 2, 3, 4),
        min_length=1,
        description="Seeds of shots, head, training and mixing.",
    )
    rows: Whole = Field(default=160, ge=1, description="Sentences an arm generates in a run.")
    unlabeled: Whole = Field(
        default=0,
        ge=0,
        description="Training texts whose labels are dropped, for the arms that can use them.",
    )
    label_noise: Number = Field(
        default=0.0, ge=0, lt=1, description="Share of the training rows that get a wrong label."
    )
    imbalance: Number = Field(
        default=1.0,
        ge=1,
        description=(
            "Ratio of the largest to the smallest class: half of the classes have `shots` divided "
            "by it."
        ),
    )
    test_rows: Whole | None = Field(
        default=None, ge=1, description="Most test rows, the same ones in all runs. By default all."
    )
    model: str = Field(default="all-minilm-l6-v2", description="Classifier to fine-tune.")
    model_revision: str | None = Field(default=None, description="Hub revision of the model.")
    freeze_embeddings: bool = Field(
        default=False,
        description="Leave the model's token embeddings as they are, which saves time on a CPU.",
    )
    lora: LoraConfig | None = Field(
        default=None, description="Train a LoRA and the head. By default all weights."
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="Any of transformers' TrainingArguments."
    )
    training_of: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Training arguments of single arms, over `training`."
    )
    mixup: MixupConfig = Field(
        default_factory=MixupConfig, description="What the mixing arms have in common."
    )

    def __post_init__(self) -> None:
        for name in ("arms", "shots", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise errors.bad(name, "not contain duplicates", values)
        self._check_variants()
        known = (*registry.names("arm"), *self.variants)
        errors.one_of("baseline", self.baseline, known)
        for name in self.training_of:
            errors.one_of("training_of", name, known)
        if self.primary is not None:
            errors.one_of("primary.arm", self.primary.arm, known)
            for name in self.primary.against:
                errors.one_of("primary.against", name, known)
        check_no_auto_off(self.mixup)
        for name, data in self.sets.items():
            if data.shots is not None:
                raise errors.bad(f"sets.{name}.shots", "be left out", data.shots, "Use `shots`.")
            for key in _NOT_OF_A_SET:
                if getattr(data, key) is not None:
                    rule = "be left out: an experiment has training rows and test rows alone"
                    raise errors.bad(f"sets.{name}.{key}", rule, getattr(data, key))

    @property
    def every_arm(self) -> tuple[str, ...]:
        """The baseline first, then the other arms, then the variants."""
        return tuple(dict.fromkeys((self.baseline, *self.arms, *self.variants)))

    @property
    def regime(self) -> str:
        """One sentence: which model is trained how, on what kind of rows."""
        trained = "all its weights"
        if self.lora is not None:
            trained = f"a LoRA of rank {self.lora.r} and the head"
        elif self.freeze_embeddings:
            trained = "all its weights but the token embeddings"
        steps = self.training.get("max_steps")
        parts = [f"Model {self.model}, trained: {trained}"]
        parts += [f"{steps} steps in every arm"] if steps else []
        parts += (
            [f"{self.label_noise:.0%} of the training labels wrong"] if self.label_noise else []
        )
        parts += [f"classes imbalanced {self.imbalance:g} : 1"] if self.imbalance > 1 else []
        parts += [f"{self.unlabeled} texts without labels"] if self.unlabeled else []
        others = ", ".join(self.training_of)
        parts += [f"training arguments of their own: {others}"] if others else []
        return "; ".join(parts) + "."

    def mixup_of(self, variant: str) -> MixupConfig:
        """How a variant mixes: as `mixup` says, but for the keys of its own."""
        return mixup_with(self.mixup, self.variants[variant])

    def digest_of(self, arm: str, data: str) -> str:
        """Of all that a run of an arm on a data set depends on, but for what its line says."""
        content = {k: v for k, v in asdict(self).items() if k not in _SAY_WHICH_RUNS}
        content["data"] = asdict(self.sets[data])
        mixup = self.mixup_of(arm) if arm in self.variants else self.mixup
        read = _files(self.sets[data], self.model, mixup.aligner)
        content["files"] = [_sha256(file) for file in read]
        content["training"] = self.training_for(arm)
        if arm in self.variants:
            content["variant"] = self.variants[arm]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def training_for(self, arm: str) -> dict[str, Any]:
        """Training arguments of one arm."""
        return self.training | self.training_of.get(arm, {})

    def _check_variants(self) -> None:
        for name, changes in self.variants.items():
            if name in registry.names("arm") or not _NAME.fullmatch(name):
                rule = "have names of letters, digits, spaces and .,+=-, and none of an arm"
                raise errors.bad("variants", rule, name)
            for key in changes:
                if key in _NOT_OF_A_VARIANT:
                    raise errors.bad(
                        f"variants.{name}", f"leave {key!r} alone", changes[key], "Arms share it."
                    )
            try:
                self.mixup_of(name)
            except ValueError as error:
                raise errors.InvalidInput(f"in `variants.{name}`: {error}") from error


def _files(data: DataConfig, *models: str) -> list[Path]:
    """The files of a data set and of models that are here, those of folders included."""
    named = (data.train_file, data.test_file, data.validation_file, data.dataset, *models)
    found: list[Path] = []
    for path in (Path(each) for each in named if each is not None):
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        # `datasets` may put a cache beside the rows that it reads.
        found += [each for each in inside if each.is_file() and not each.match("cache-*")]
    return found


def _sha256(file: Path) -> str:
    stat = file.stat()
    return _sha256_of(file, stat.st_mtime_ns, stat.st_size)


@cache  # until the file changes; it is asked for once per run
def _sha256_of(file: Path, changed: int, size: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def mixup_with(mixup: MixupConfig, changes: dict[str, Any]) -> MixupConfig:
    """A config with some keys changed. What the user set stays; a new `method` decides the rest.

    Raises:
        InvalidInput: A key is unknown, or a value breaks its rule.
    """
    return replace(mixup, **changes)
