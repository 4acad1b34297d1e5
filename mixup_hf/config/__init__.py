"""What a user can set: frozen dataclasses that are checked when built.

Default, bounds and help of a setting stand once, in its field. Only the edge of the library knows
these classes: everything below takes plain arguments.
"""

from __future__ import annotations

from mixup_hf.config._base import OFF, Named, Number, Whole, build, settings
from mixup_hf.config._describe import Key, describe
from mixup_hf.config._mixing_rules import (
    Failure,
    Interpolation,
    IntrusionPolicy,
    LabelSource,
    LeakPolicy,
    Mixing,
    Quantization,
    Source,
    StrategyName,
    Unreadable,
    check_interpolation,
    check_mix_ratio,
    check_unlabeled,
)
from mixup_hf.config.alignment import AlignConfig, StageConfig, TaskConfig
from mixup_hf.config.fidelity import FidelityConfig
from mixup_hf.config.finetuning import (
    DataConfig,
    FinetuneConfig,
    ProblemType,
    check_no_auto_off,
)
from mixup_hf.config.mixing import DEFAULT_COMMITTEE, DEFAULT_METHOD, MixupConfig
from mixup_hf.config.student import LoraConfig

__all__ = [
    "DEFAULT_COMMITTEE",
    "DEFAULT_METHOD",
    "OFF",
    "AlignConfig",
    "DataConfig",
    "Failure",
    "FidelityConfig",
    "FinetuneConfig",
    "Interpolation",
    "IntrusionPolicy",
    "Key",
    "LabelSource",
    "LeakPolicy",
    "LoraConfig",
    "Mixing",
    "MixupConfig",
    "Named",
    "Number",
    "ProblemType",
    "Quantization",
    "Source",
    "StageConfig",
    "StrategyName",
    "TaskConfig",
    "Unreadable",
    "Whole",
    "build",
    "check_interpolation",
    "check_mix_ratio",
    "check_no_auto_off",
    "check_unlabeled",
    "describe",
    "settings",
]
