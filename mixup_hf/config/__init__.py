"""What a user can set: frozen dataclasses whose fields carry their help, checked on creation.

Only the edge of the library knows these classes: everything below takes plain arguments.
"""

from __future__ import annotations

from mixup_hf.config.alignment import AlignConfig, FidelityConfig, StageConfig, TaskConfig
from mixup_hf.config.finetuning import DataConfig, FinetuneConfig, check_no_auto_off
from mixup_hf.config.mixing import MixupConfig, check_mix_ratio

__all__ = [
    "AlignConfig",
    "DataConfig",
    "FidelityConfig",
    "FinetuneConfig",
    "MixupConfig",
    "StageConfig",
    "TaskConfig",
    "check_mix_ratio",
    "check_no_auto_off",
]
