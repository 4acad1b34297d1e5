"""Manifold intrusion: generated sentences whose label contradicts what they say, found and mended.

A mix lands on, or near, the data manifold where its true label contradicts its mixed label
(AdaMixUp, arXiv 1809.02499). `judges` say what a sentence is, out of fold for its parents; `events`
name what is wrong with it, at thresholds that real rows trigger at a fixed rate; `gate` does
something about it.
"""

from __future__ import annotations

from mixup_hf.judging.events import EVENTS, Detector, Thresholds, calibrate
from mixup_hf.judging.gate import LEAK_POLICIES, POLICIES, Gate, build_gate
from mixup_hf.judging.judges import JUDGES, ClassifierJudge, KnnJudge, LikelihoodJudge
from mixup_hf.judging.report import IntrusionReport, false_alarms, intrusion_report

__all__ = [
    "EVENTS",
    "JUDGES",
    "LEAK_POLICIES",
    "POLICIES",
    "ClassifierJudge",
    "Detector",
    "Gate",
    "IntrusionReport",
    "KnnJudge",
    "LikelihoodJudge",
    "Thresholds",
    "build_gate",
    "calibrate",
    "false_alarms",
    "intrusion_report",
]
