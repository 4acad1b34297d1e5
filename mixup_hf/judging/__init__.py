"""Manifold intrusion: generated sentences whose label contradicts their content.

A mix can land on, or near, a region of the data manifold where the true label contradicts the
mixed label (AdaMixUp, Guo et al. 2019, arXiv 1809.02499). `judges` estimate the class of a
sentence out of fold for its parents; `events` names what is wrong, with thresholds that real rows
exceed at a fixed rate; `policies` decides what happens to the row; `leaks` keeps evaluation texts
out. Names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixup_hf.judging.events import EVENTS, Detector
    from mixup_hf.judging.judges import Judge, JudgeInputs
    from mixup_hf.judging.judges.classifier import ClassifierJudge
    from mixup_hf.judging.judges.knn import KnnJudge
    from mixup_hf.judging.judges.llm import LikelihoodJudge
    from mixup_hf.judging.policies import LEAK_POLICIES, POLICIES, Gate, build_gate
    from mixup_hf.judging.report import IntrusionReport, false_alarms, intrusion_report
    from mixup_hf.judging.thresholds import Thresholds, calibrate

_HOMES = {
    "EVENTS": "events",
    "LEAK_POLICIES": "policies",
    "POLICIES": "policies",
    "ClassifierJudge": "judges.classifier",
    "Detector": "events",
    "Gate": "policies",
    "IntrusionReport": "report",
    "Judge": "judges",
    "JudgeInputs": "judges",
    "KnnJudge": "judges.knn",
    "LikelihoodJudge": "judges.llm",
    "Thresholds": "thresholds",
    "build_gate": "policies",
    "calibrate": "thresholds",
    "false_alarms": "report",
    "intrusion_report": "report",
}

__all__ = [
    "EVENTS",
    "LEAK_POLICIES",
    "POLICIES",
    "ClassifierJudge",
    "Detector",
    "Gate",
    "IntrusionReport",
    "Judge",
    "JudgeInputs",
    "KnnJudge",
    "LikelihoodJudge",
    "Thresholds",
    "build_gate",
    "calibrate",
    "false_alarms",
    "intrusion_report",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mixup_hf.judging' has no attribute {name!r}")
    return getattr(import_module(f"mixup_hf.judging.{_HOMES[name]}"), name)
