"""Training an aligner: data, objective, stages, fidelity."""

from __future__ import annotations

from mixup_hf.align.data import read_sentences
from mixup_hf.align.train import align
from mixup_hf.evaluation.fidelity import Fidelity, measure_fidelity

__all__ = ["Fidelity", "align", "measure_fidelity", "read_sentences"]
