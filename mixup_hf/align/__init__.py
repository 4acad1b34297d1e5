"""Training an aligner: data, objective, stages, fidelity."""

from __future__ import annotations

from mixup_hf.align.train import align

__all__ = ["align"]
