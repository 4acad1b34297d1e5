"""What an experiment compares, on what, how often."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from mixup_hf import _checks
from mixup_hf.config import DataConfig, MixupConfig, check_no_auto_off

ARMS = (
    "none",
    "oversample",
    "eda",
    "contextual",
    "paraphrase",
    "embedding_mixup",
    "smotext",
    "structure_preserving",
    "inversed_mixup",
)
_SAY_WHICH_RUNS = ("sets", "arms", "shots", "seeds", "output_dir", "baseline")


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class ExperimentConfig:
    """Arms x data sets x shots x seeds; all arms of a seed share rows, head and steps."""

    __pydantic_config__ = {"extra": "forbid"}

    sets: dict[str, DataConfig] = field(metadata=_help("The data sets, by name."))
    output_dir: str = field(metadata=_help("Where runs.jsonl and every arm's sentences go."))
    arms: tuple[str, ...] = field(default=ARMS, metadata=_help("What is compared: names of arms."))
    baseline: str = field(
        default="oversample", metadata=_help("The arm that all others are compared with.")
    )
    shots: tuple[int, ...] = field(default=(10,), metadata=_help("Rows per class, each in turn."))
    seeds: tuple[int, ...] = field(
        default=(0, 1, 2, 3, 4), metadata=_help("Of shots, head, training and mixing.")
    )
    rows: int = field(default=160, metadata=_help("Sentences an arm makes in a run."))
    test_rows: int | None = field(
        default=None, metadata=_help("Test rows at most, the same ones in all runs.")
    )
    model: str = field(default="all-minilm-l6-v2", metadata=_help("Classifier to fine-tune."))
    model_revision: str | None = field(default=None, metadata=_help("Hub revision of the model."))
    training: dict[str, Any] = field(
        default_factory=dict, metadata=_help("Any of transformers' TrainingArguments.")
    )
    mixup: MixupConfig = field(
        default_factory=MixupConfig, metadata=_help("What the mixing arms have in common.")
    )

    def __post_init__(self) -> None:
        if not self.sets:
            raise _checks.bad("sets", "name at least one data set", self.sets)
        for name in ("arms", "shots", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise _checks.bad(name, "name at least one, and none twice", values)
        for arm in self.arms:
            _checks.one_of("arms", arm, ARMS)
        _checks.one_of("baseline", self.baseline, ARMS)
        for shots in self.shots:
            _checks.at_least("shots", shots, 1)
        for seed in self.seeds:
            _checks.at_least("seeds", seed, 0)
        _checks.at_least("rows", self.rows, 1)
        check_no_auto_off(self.mixup)
        if self.test_rows is not None:
            _checks.at_least("test_rows", self.test_rows, 1)
        for name, data in self.sets.items():
            if data.shots is not None:
                raise _checks.bad(f"sets.{name}.shots", "be left out", data.shots, "Use `shots`.")

    @property
    def digest(self) -> str:
        """Of all that a run depends on, but for what its own line says."""
        content = {k: v for k, v in asdict(self).items() if k not in _SAY_WHICH_RUNS}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
