"""Aligners to the Hub and back, against a hub on this machine. No real hub is ever asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_stub import HubStub

REPO = "user/aligner"
FILES = {
    "config.json",
    "model.safetensors",
    "lora/adapter_config.json",
    "lora/adapter_model.safetensors",
    "README.md",
}


@pytest.fixture
def hub() -> Iterator[HubStub]:
    with HubStub() as stub:
        yield stub


def run(hub: HubStub, home: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: the Hub's client reads its address once, at import."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_TOKEN": "dummy",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
    }
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )


def push(hub: HubStub, folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# tiny\n")
    (folder / "notes.txt").write_text("not part of a checkpoint")
    code = f"from mixup_hf.cli.main import app; app(['push', {str(folder)!r}, {REPO!r}])"
    result = run(hub, tmp_path / "home", code)
    assert result.returncode == 0, result.stderr[-2000:]


PULL = f"""
from mixup_hf import Inverter
inverter = Inverter.from_pretrained({REPO!r}, revision="main", device="cpu", quantization="none")
print(inverter.fingerprint, inverter.invert(inverter.encode(["the red market"]), temperature=0.0))
"""


def test_a_pushed_aligner_comes_back_the_same(
    hub: HubStub, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    folder = saved_aligner(lora=True)
    push(hub, folder, tmp_path)
    assert set(hub.repos[REPO]) == FILES
    pulled = run(hub, tmp_path / "home", PULL)
    assert pulled.returncode == 0, pulled.stderr[-2000:]
    local = run(hub, tmp_path / "home", PULL.replace(repr(REPO), repr(str(folder))))
    assert pulled.stdout == local.stdout


def test_only_needed_files_are_fetched_and_only_once(
    hub: HubStub, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    push(hub, saved_aligner(lora=True), tmp_path)
    hub.repos[REPO]["optimizer.pt"] = b"large and not needed"
    run(hub, tmp_path / "home", PULL)
    fetched = [line for line in hub.requests if line.startswith("GET") and "/resolve/" in line]
    assert fetched
    assert not any("optimizer.pt" in line for line in fetched)
    hub.requests.clear()
    again = run(hub, tmp_path / "home", PULL)
    assert again.returncode == 0
    assert not any("GET" in line and "/resolve/" in line for line in hub.requests)


def test_a_cached_aligner_loads_without_the_hub(
    hub: HubStub, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    push(hub, saved_aligner(lora=True), tmp_path)
    first = run(hub, tmp_path / "home", PULL)
    hub.server.shutdown()
    hub.server.server_close()
    again = run(hub, tmp_path / "home", PULL)
    assert again.returncode == 0, again.stderr[-2000:]
    assert again.stdout == first.stdout


def test_an_interrupted_download_says_so_and_is_made_good(
    hub: HubStub, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    push(hub, saved_aligner(lora=True), tmp_path)
    hub.cut = {"model.safetensors"}
    broken = run(hub, tmp_path / "home", PULL)
    assert broken.returncode != 0
    assert "SourceError" in broken.stderr
    hub.cut = set()
    assert run(hub, tmp_path / "home", PULL).returncode == 0


def test_a_file_that_was_tampered_with_is_refused(
    hub: HubStub, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    push(hub, saved_aligner(lora=True), tmp_path)
    hub.repos[REPO]["model.safetensors"] = hub.repos[REPO]["model.safetensors"][:100]
    broken = run(hub, tmp_path / "home", PULL)
    assert broken.returncode != 0
    assert "AlignerMismatchError" in broken.stderr
    assert "fetch it again" in broken.stderr


def test_an_unknown_repository_names_the_embedded_way_out(hub: HubStub, tmp_path: Path) -> None:
    result = run(hub, tmp_path / "home", PULL)
    assert result.returncode != 0
    assert "all-minilm-l6-v2" in result.stderr


def test_pushing_what_is_no_aligner_is_refused(hub: HubStub, tmp_path: Path) -> None:
    code = f"from mixup_hf.inverter.hub import push_folder; push_folder('.', {REPO!r})"
    result = run(hub, tmp_path, code)
    assert result.returncode != 0
    assert "not an aligner checkpoint" in result.stderr
    assert not hub.repos
