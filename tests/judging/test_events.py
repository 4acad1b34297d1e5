"""Events: each is found, and real rows trigger them at the rate asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from judging_data import ROW, blobs
from torch import Tensor
from torch.nn import functional as F

from mixup_hf.config import DataConfig
from mixup_hf.data.sources import resolve
from mixup_hf.data.tables import read_splits
from mixup_hf.data.targets import class_indices
from mixup_hf.inverter.encoder import FrozenEncoder
from mixup_hf.judging import (
    ClassifierJudge,
    Detector,
    KnnJudge,
    Thresholds,
    calibrate,
    false_alarms,
)
from mixup_hf.judging.events import CALIBRATION_ROWS, is_degenerate
from mixup_hf.judging.thresholds import rare_limits

TEXTS = [f"row {number} of the training set" for number in range(600)]


class Says:
    """A judge that says the same of everything."""

    def __init__(self, *probabilities: float) -> None:
        self.probabilities = torch.tensor(probabilities)

    def judge(self, texts: Any, embeddings: Tensor, parents: np.ndarray) -> Tensor:
        return self.probabilities.expand(len(texts), -1)


def detector(judge: Any, thresholds: Thresholds | None = None, count: int = 60) -> Detector:
    return Detector({"it": judge}, TEXTS[:count], *blobs(count), thresholds=thresholds)


FAR = torch.zeros(1, 8)


@pytest.mark.parametrize(
    ("said", "changes", "events"),
    [
        ((0.5, 0.5, 0.0), {}, ()),
        ((0.1, 0.1, 0.8), {}, ("third_class", "conflict")),
        ((0.3, 0.3, 0.4), {}, ()),  # likeliest, but not sure enough
        ((0.96, 0.02, 0.02), {}, ("conflict",)),
        ((0.96, 0.02, 0.02), {"label": (1.0, 0.0, 0.0)}, ()),
        ((0.5, 0.5, 0.0), {"text": ""}, ("degenerate",)),
        ((0.5, 0.5, 0.0), {"text": TEXTS[1]}, ("collapse",)),
        ((0.5, 0.5, 0.0), {"text": TEXTS[1], "shares": (0.1, 0.9)}, ()),
    ],
)
def test_events_are_named(said: Any, changes: dict[str, Any], events: tuple[str, ...]) -> None:
    limits = Thresholds(third_class=0.6, conflict=0.9, collision=0.1)
    finding = detector(Says(*said), limits).inspect([replace(ROW, **changes)], FAR)[0]
    assert finding.events == events
    assert finding.judges == {"it": pytest.approx(said)}


def test_a_sentence_next_to_a_real_row_of_another_class_collides() -> None:
    limits = Thresholds(third_class=1, conflict=99, collision=0.1)
    found = detector(Says(0.5, 0.5, 0.0), limits)
    third = found.embeddings[2:3]  # row 2 is of class 2; the parents are of 0 and 1
    assert found.inspect([ROW], third)[0].events == ("collision",)
    own = replace(ROW, parents=(0, 2), label=(0.5, 0.0, 0.5))
    assert found.inspect([own], third)[0].events == ()


def test_several_judges_are_averaged() -> None:
    judges = {"one": Says(1.0, 0.0, 0.0), "two": Says(0.0, 0.0, 1.0)}
    both = Detector(judges, TEXTS[:60], *blobs(60), thresholds=Thresholds())
    finding = both.inspect([ROW], FAR)[0]
    assert finding.judged.tolist() == [0.5, 0.0, 0.5]
    assert finding.judges == {"one": (1.0, 0.0, 0.0), "two": (0.0, 0.0, 1.0)}


@pytest.mark.parametrize("kind", [KnnJudge, ClassifierJudge])
@pytest.mark.parametrize("rate", [0.05, 0.2])
@pytest.mark.parametrize("spread", [0.3, 0.5, 0.8])
def test_unseen_real_rows_trigger_at_the_calibrated_rate(
    kind: Any, rate: float, spread: float
) -> None:
    """Three sets: well apart, touching, and one where the judges are often wrong."""
    texts = [f"text {row}" for row in range(2400)]
    doubted = false_alarms(kind, texts, *blobs(2400, spread=spread), rate=rate)
    assert doubted.of == 1200
    assert doubted.share == pytest.approx(rate, abs=0.02 if rate == 0.05 else 0.04)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [KnnJudge, ClassifierJudge])
def test_unseen_headlines_trigger_at_the_calibrated_rate(kind: Any) -> None:
    table, _ = read_splits(DataConfig(dataset="bbc_headlines"))
    indices, names = class_indices(table.labels, None, None)
    encoder = FrozenEncoder.from_pretrained(resolve("all-minilm-l6-v2").path)
    embeddings = encoder.encode(table.texts, progress=False)
    doubted = false_alarms(kind, table.texts, embeddings, torch.eye(len(names))[indices])
    assert doubted.of == 733
    assert doubted.share == pytest.approx(0.05, abs=0.02)


@settings(max_examples=40)
@given(st.integers(40, 300), st.floats(0.01, 0.4), st.integers(0, 999))
def test_calibration_rows_trigger_at_most_at_the_rate(count: int, rate: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    names = ("third_class", "conflict", "collision")
    scores = {name: torch.rand(count, generator=draw) for name in names}
    limits = calibrate(scores, rate)
    fired = scores["third_class"] > limits.third_class
    fired |= scores["conflict"] > limits.conflict
    fired |= -scores["collision"] < limits.collision
    share = fired.float().mean()
    assert share <= rate
    assert share >= rate - 4 / count - 0.01  # and not far below


def test_too_few_rows_fall_back_to_stated_defaults(caplog: pytest.LogCaptureFixture) -> None:
    found = detector(Says(1.0, 0.0, 0.0), count=30)
    assert found.thresholds == Thresholds()
    assert "30 training rows are too few" in caplog.text


def test_a_detector_without_judges_is_refused() -> None:
    with pytest.raises(ValueError, match="`judges` must name at least one"):
        Detector({}, TEXTS[:60], *blobs(60))


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("", True),
        ("...", True),
        ("the the the the", True),
        ("I want to go and I want to go and I want to go", True),
        ("no", False),
        ("The cord is cut and tied, and the blood is drawn.", False),
        ("the man and the dog and the cat and the bird", False),
    ],
)
def test_loops_and_empty_texts_are_degenerate(text: str, bad: bool) -> None:
    assert is_degenerate(text) is bad


def test_large_sets_are_calibrated_on_a_sample_of_the_seed(caplog: Any) -> None:
    caplog.set_level("INFO")
    count = CALIBRATION_ROWS + 500
    asked: list[np.ndarray] = []

    class Asked(Says):
        def judge(self, texts: Any, embeddings: Tensor, parents: np.ndarray) -> Tensor:
            asked.append(parents[:, 0])
            return super().judge(texts, embeddings, parents)

    def drawn(seed: int) -> list[int]:
        asked.clear()
        judges = {"it": Asked(0.4, 0.3, 0.3)}
        Detector(judges, [f"text {at}" for at in range(count)], *blobs(count), seed=seed)
        assert max(map(len, asked)) <= 256  # never all at once
        return [int(row) for run in asked for row in run]

    first = drawn(0)
    assert len(set(first)) == CALIBRATION_ROWS
    assert max(first) >= CALIBRATION_ROWS  # not just the first rows
    assert drawn(0) == first != drawn(1)
    assert "calibrated on 4,096 of 4,596 training rows, drawn with seed 1" in caplog.text


_PEAK = """
import re, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from torch.nn.functional import normalize
from mixup_hf.judging import build_gate
rows = int(sys.argv[1])
embeddings = normalize(torch.randn(rows, 384, generator=torch.Generator().manual_seed(0)), dim=1)
targets = torch.eye(4)[torch.arange(rows) % 4]
build_gate([f"text {row}" for row in range(rows)], embeddings, targets, None)
status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent, too
print(int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's /proc")
@pytest.mark.parametrize("rows", [16_000, pytest.param(120_000, marks=pytest.mark.slow)])
def test_a_gate_over_many_rows_stays_within_memory(rows: int) -> None:
    """All distances among 16,000 rows alone would be 1 GiB, and a mask as large again."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(rows)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < (800 if rows == 16_000 else 2048)


@pytest.mark.parametrize("rare", [5, 20])
def test_rows_of_a_rare_class_are_not_all_doubted(rare: int) -> None:
    """Judges hardly know the class; its own rows, mixed within it, are as good as real ones."""
    sizes = [200, rare]
    draw = torch.Generator().manual_seed(0)
    classes = torch.arange(2).repeat_interleave(torch.tensor(sizes))
    spread = 0.8 * torch.randn(sum(sizes), 8, generator=draw)
    embeddings = F.normalize(torch.eye(8)[classes] + spread, dim=-1)
    targets = F.one_hot(classes, 2).float()
    texts = [f"text number {at}" for at in range(sum(sizes))]
    found = Detector({"knn": KnnJudge(embeddings, targets)}, texts, embeddings, targets)
    pairs = [(200 + at % rare, 200 + (at + 1) % rare) for at in range(40)]
    rows = [
        replace(ROW, text=f"mix {at}", parents=pair, shares=(0.5, 0.5), label=(0.0, 1.0))
        for at, pair in enumerate(pairs)
    ]
    mixes = torch.stack([(embeddings[a] + embeddings[b]) / 2 for a, b in pairs])
    doubted = [bool(each.events) for each in found.inspect(rows, mixes)]
    assert sum(doubted) <= (0 if rare == 5 else 4)
    limits, found._rare = found._rare, {}  # as if its rows were like all others
    assert sum(bool(each.events) for each in found.inspect(rows, mixes)) > 10
    assert all(each[0] == -torch.inf < each[1] for each in limits.values())


def test_only_classes_of_a_third_of_the_largest_have_limits_of_their_own() -> None:
    scores = {name: torch.arange(40.0) for name in ("third_class", "conflict", "collision")}
    assert rare_limits(scores, torch.arange(40) % 2, 2, 0.05) == {}
    classes = torch.tensor([0] * 26 + [1] * 2 + [2] * 12)
    limits = rare_limits(scores, classes, 3, 0.05)["conflict"]
    assert limits.tolist() == [-torch.inf, torch.inf, -torch.inf]
    classes = torch.tensor([0] * 28 + [2] * 12)
    assert rare_limits(scores, classes, 3, 0.05)["conflict"].tolist() == [
        -torch.inf,
        torch.inf,
        -torch.inf,
    ]
    classes = torch.tensor([0] * 60 + [2] * 20)
    many = {name: torch.arange(80.0) for name in scores}
    assert rare_limits(many, classes, 3, 0.1)["conflict"].tolist() == [-torch.inf, torch.inf, 78]
