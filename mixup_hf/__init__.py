"""Inverted mixup for the Hugging Face Trainer.

Importing the package loads neither models nor peft nor bitsandbytes; names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixup_hf.config import AlignConfig, FinetuneConfig, MixupConfig
    from mixup_hf.config.load import load_config
    from mixup_hf.data.sources import fetch_embedded
    from mixup_hf.evaluation.metrics import load_metric
    from mixup_hf.finetuning.runner import finetune
    from mixup_hf.inverter.model import Inverter
    from mixup_hf.mixing.pairing import PairPlan
    from mixup_hf.mixing.weights import parse_weights
    from mixup_hf.training.augmentation import augment_dataset
    from mixup_hf.training.callback import MixupCallback
    from mixup_hf.training.collator import MixupCollator
    from mixup_hf.training.inversed import InversedMixup
    from mixup_hf.training.loss import soft_cross_entropy
    from mixup_hf.training.offline import OfflineMixup
    from mixup_hf.training.pool import MixupPool
    from mixup_hf.types import MixedExample

__version__ = "0.2.0"

__all__ = [
    "AlignConfig",
    "FinetuneConfig",
    "InversedMixup",
    "Inverter",
    "MixedExample",
    "MixupCallback",
    "MixupCollator",
    "MixupConfig",
    "MixupPool",
    "OfflineMixup",
    "PairPlan",
    "augment_dataset",
    "fetch_embedded",
    "finetune",
    "load_config",
    "load_metric",
    "parse_weights",
    "soft_cross_entropy",
]

_HOMES = {
    "AlignConfig": "config",
    "FinetuneConfig": "config",
    "InversedMixup": "training.inversed",
    "Inverter": "inverter.model",
    "MixedExample": "types",
    "MixupCallback": "training.callback",
    "MixupCollator": "training.collator",
    "MixupConfig": "config",
    "MixupPool": "training.pool",
    "OfflineMixup": "training.offline",
    "PairPlan": "mixing.pairing",
    "augment_dataset": "training.augmentation",
    "fetch_embedded": "data.sources",
    "finetune": "finetuning.runner",
    "load_config": "config.load",
    "load_metric": "evaluation.metrics",
    "parse_weights": "mixing.weights",
    "soft_cross_entropy": "training.loss",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mixup_hf' has no attribute {name!r}")
    value = getattr(import_module(f"mixup_hf.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, "__version__"])
