"""What an experiment compares, on what, how often."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from mixup_hf import errors, registry
from mixup_hf._fields import help_
from mixup_hf.config import DataConfig, MixupConfig, check_no_auto_off
from mixup_hf.loading import build_config

_SAY_WHICH_RUNS = ("sets", "arms", "variants", "shots", "seeds", "output_dir", "baseline")
# What all arms share, or the experiment sets itself.
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
_NAME = re.compile(r"\w[\w .,+=-]*")


@dataclass(frozen=True)
class ExperimentConfig:
    """Arms x data sets x shots x seeds; all arms of a seed share rows, head and steps."""

    __pydantic_config__ = {"extra": "forbid"}

    sets: dict[str, DataConfig] = field(metadata=help_("The data sets, by name."))
    output_dir: str = field(metadata=help_("Where runs.jsonl and every arm's sentences go."))
    arms: tuple[str, ...] = field(
        default_factory=lambda: registry.names("arm"),
        metadata=help_("What is compared: names of arms; default: all of them."),
    )
    variants: dict[str, dict[str, Any]] = field(
        default_factory=dict,
        metadata=help_("Mixing arms of your own: a name, and keys of `mixup` with their values."),
    )
    baseline: str = field(
        default="oversample", metadata=help_("The arm that all others are compared with.")
    )
    shots: tuple[int, ...] = field(default=(10,), metadata=help_("Rows per class, each in turn."))
    seeds: tuple[int, ...] = field(
        default=(0, 1, 2, 3, 4), metadata=help_("Of shots, head, training and mixing.")
    )
    rows: int = field(default=160, metadata=help_("Sentences an arm makes in a run."))
    test_rows: int | None = field(
        default=None, metadata=help_("Test rows at most, the same ones in all runs.")
    )
    model: str = field(default="all-minilm-l6-v2", metadata=help_("Classifier to fine-tune."))
    model_revision: str | None = field(default=None, metadata=help_("Hub revision of the model."))
    training: dict[str, Any] = field(
        default_factory=dict, metadata=help_("Any of transformers' TrainingArguments.")
    )
    mixup: MixupConfig = field(
        default_factory=MixupConfig, metadata=help_("What the mixing arms have in common.")
    )

    def __post_init__(self) -> None:
        if not self.sets:
            raise errors.bad("sets", "name at least one data set", self.sets)
        for name in ("arms", "shots", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise errors.bad(name, "name at least one, and none twice", values)
        for arm in self.arms:
            registry.get("arm", arm, argument="arms")
        self._check_variants()
        errors.one_of("baseline", self.baseline, (*registry.names("arm"), *self.variants))
        for shots in self.shots:
            errors.at_least("shots", shots, 1)
        for seed in self.seeds:
            errors.at_least("seeds", seed, 0)
        errors.at_least("rows", self.rows, 1)
        check_no_auto_off(self.mixup)
        if self.test_rows is not None:
            errors.at_least("test_rows", self.test_rows, 1)
        for name, data in self.sets.items():
            if data.shots is not None:
                raise errors.bad(f"sets.{name}.shots", "be left out", data.shots, "Use `shots`.")

    @property
    def every_arm(self) -> tuple[str, ...]:
        """The baseline first, then the other arms, then the variants."""
        return tuple(dict.fromkeys((self.baseline, *self.arms, *self.variants)))

    def mixup_of(self, variant: str) -> MixupConfig:
        """How a variant mixes: as `mixup` says, but for the keys of its own."""
        return mixup_with(self.mixup, self.variants[variant])

    def digest_of(self, arm: str, data: str) -> str:
        """Of all that a run of an arm on a data set depends on, but for what its line says."""
        content = {k: v for k, v in asdict(self).items() if k not in _SAY_WHICH_RUNS}
        content["data"] = asdict(self.sets[data])
        if arm in self.variants:
            content["variant"] = self.variants[arm]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _check_variants(self) -> None:
        for name, settings in self.variants.items():
            if name in registry.names("arm") or not _NAME.fullmatch(name):
                rule = "have names of letters, digits, spaces and .,+=-, and none of an arm"
                raise errors.bad("variants", rule, name)
            for key in settings:
                if key in _NOT_OF_A_VARIANT:
                    raise errors.bad(
                        f"variants.{name}", f"leave {key!r} alone", settings[key], "Arms share it."
                    )
            try:
                self.mixup_of(name)
            except ValueError as error:
                raise errors.InvalidInput(f"in `variants.{name}`: {error}") from error


def mixup_with(mixup: MixupConfig, settings: dict[str, Any]) -> MixupConfig:
    """A config with some keys changed; a `method` among them brings its own weights and pairing.

    Raises:
        ValueError: A key is unknown, or a value breaks its rule.
    """
    plain = MixupConfig(method=mixup.method)
    values = {name: getattr(mixup, name) for name in mixup.__dataclass_fields__}
    # What the method has filled in is left out: another method fills in its own.
    given = {name: value for name, value in values.items() if value != getattr(plain, name)}
    return build_config(MixupConfig, given | {"method": mixup.method} | settings)
