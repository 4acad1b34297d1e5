"""For imbalanced-learn: `from mixup_hf.imblearn import TextSMOTE` (extra `imbalance`)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixup_hf.imblearn.text_smote import TextSMOTE

__all__ = ["TextSMOTE"]


def __getattr__(name: str) -> Any:
    """Load `TextSMOTE` on first use: imbalanced-learn is optional, and slow to import.

    Raises:
        MissingPackage: imbalanced-learn is not installed.
    """
    if name not in __all__:
        raise AttributeError(f"module 'mixup_hf.imblearn' has no attribute {name!r}")
    from mixup_hf.errors import optional

    optional("imblearn", "imbalance", f"`{name}`")
    value = getattr(import_module("mixup_hf.imblearn.text_smote"), name)
    globals()[name] = value
    return value
