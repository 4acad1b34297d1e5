"""Short versions of the campaigns of recipes/reliability: a trial or two of every kind."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import faults
import hostile
import inputs
import pytest
import trials

ROOT = Path(__file__).parents[2]
CAMPAIGN = ROOT / "recipes" / "reliability" / "campaign.py"


def try_twice(kinds: dict[str, trials.Trial], kind: str, folder: Path, count: int = 2) -> None:
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        kinds[kind](random.Random(f"short/{kind}/{number}"), place)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_hostile_checkpoints_are_refused(kind: str, tmp_path: Path) -> None:
    try_twice(hostile.KINDS, kind, tmp_path)


@pytest.mark.parametrize("kind", inputs.KINDS)
def test_nasty_inputs_are_read_right_or_refused(kind: str, tmp_path: Path) -> None:
    try_twice(inputs.KINDS, kind, tmp_path)


@pytest.mark.parametrize("kind", faults.KINDS)
def test_faults_of_disk_and_network_lose_nothing(kind: str, tmp_path: Path) -> None:
    try_twice(faults.KINDS, kind, tmp_path, count=1)


@pytest.mark.parametrize(
    ("campaign", "only"), [("kills", "augment"), ("batches", "1 workers, 2 processes")]
)
def test_kills_and_batches_run_from_the_command_line(campaign: str, only: str) -> None:
    command = [sys.executable, str(CAMPAIGN), campaign, "--only", only, "--count", "1"]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"1 {only}" in done.stdout
    assert "faults: 0" in done.stdout


def test_a_fault_is_counted_and_can_be_repeated() -> None:
    def sometimes(rng: random.Random, folder: Path) -> str:
        if rng.random() < 0.5:
            raise trials.Fault("half of them")
        return "accepted"

    tally = trials.campaign({"x": sometimes}, seed=3, count=20)
    assert 0 < len(tally.faults) < 20
    assert tally.outcomes["failed"] == len(tally.faults)
    _, number, trace = tally.faults[0]
    assert "half of them" in trace
    assert len(trials.campaign({"x": sometimes}, seed=3, only="x", number=number).faults) == 1
    assert f"trial {number} of seed 3" in tally.report()


def test_a_hang_is_a_fault() -> None:
    def endless(rng: random.Random, folder: Path) -> str:
        while True:
            try:
                folder.exists()
            except Exception:
                continue

    tally = trials.campaign({"x": endless}, seed=0, count=1, hang=1)
    assert "not done after 1 seconds" in tally.faults[0][2]


def test_what_a_payload_would_leave_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(trials.Fault, match="executed"), trials.unchanged(tmp_path):
        (tmp_path / "executed").mkdir()
        (tmp_path / "executed" / "x").touch()


def test_the_bill_of_materials_names_every_part_and_pins_what_is_fetched() -> None:
    import sbom

    from mixup_hf.data.embedded import EMBEDDED

    bill = json.loads(json.dumps(sbom.bill([*sbom.installed(), *sbom.fetched()])))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["name"]: part for part in bill["components"]}
    assert {"torch", "transformers", "typer", "safetensors"} <= parts.keys()
    assert all(part["licenses"][0]["license"]["name"] for part in parts.values())
    pinned = [part["hashes"][0]["content"] for part in parts.values() if "hashes" in part]
    assert sorted(pinned) == sorted(source.wheel.sha256 for source in EMBEDDED.values())
    assert all(len(digest) == 64 for digest in pinned)


def test_an_audit_names_what_is_vulnerable_and_does_not_call_sound_what_it_could_not_ask() -> None:
    import sbom

    found = {"id": "CVE-1", "fix_versions": ["2.1"]}
    lines, count = sbom.audited(
        [
            {"name": "a", "version": "2.0", "vulns": [found]},
            {"name": "b", "version": "1.0", "vulns": []},
            {"name": "c", "skip_reason": "not found"},
        ]
    )
    assert count == 1
    assert lines == [
        "a 2.0: CVE-1, mended in 2.1",
        "1 of 2 packages have a known vulnerability; 1 could not be looked up.",
    ]
