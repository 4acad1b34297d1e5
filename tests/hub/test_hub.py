"""Aligners to the Hub and back, against a hub on this machine. No real hub is ever asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_stub import HubStub

from mixup_hf.errors import MixupError
from mixup_hf.inverter.hub import push_folder

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
    code = f"from mixup_hf.cli.main import app; app(['push', {str(folder)!r}, {REPO!r}])"
    result = run(hub, tmp_path / "home", code)
    assert result.returncode == 0, result.stderr[-2000:]


def hold(hub: HubStub, folder: Path) -> None:
    """The files of an aligner on the hub, without a push."""
    hub.repos[REPO] = {name: (folder / name).read_bytes() for name in FILES - {"README.md"}}


PULL = """
from mixup_hf import Inverter
for source in {sources!r}:
    inverter = Inverter.from_pretrained(
        source, revision="main" if source == {repo!r} else None, device="cpu", quantization="none"
    )
    texts = inverter.invert(inverter.encode(["the red market"]), temperature=0.0)
    print(inverter.fingerprint, texts)
"""


def pull(hub: HubStub, home: Path, *sources: object) -> subprocess.CompletedProcess[str]:
    return run(hub, home, PULL.format(repo=REPO, sources=[str(each) for each in sources or [REPO]]))


def fetched(hub: HubStub) -> list[str]:
    return [line for line in hub.requests if line.startswith("GET") and "/resolve/" in line]


def test_a_pushed_aligner_comes_back_the_same_and_is_fetched_once(
    hub: HubStub, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    folder, home = saved_aligner(lora=True), tmp_path / "home"
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# tiny\n")
    (folder / "notes.txt").write_text("not part of a checkpoint")
    push(hub, folder, tmp_path)
    assert set(hub.repos[REPO]) == FILES

    hub.repos[REPO]["optimizer.pt"] = b"large and not needed"
    pulled = pull(hub, home, REPO, folder)
    assert pulled.returncode == 0, pulled.stderr[-2000:]
    remote, local = pulled.stdout.splitlines()
    assert remote == local
    assert fetched(hub)
    assert not any("optimizer.pt" in line for line in fetched(hub))

    # Cached: nothing is fetched again, and the hub may be gone.
    hub.requests.clear()
    again = pull(hub, home)
    assert again.returncode == 0, again.stderr[-2000:]
    assert not fetched(hub)
    hub.server.shutdown()
    hub.server.server_close()
    without = pull(hub, home)
    assert without.returncode == 0, without.stderr[-2000:]
    assert without.stdout == again.stdout == f"{remote}\n"


def test_an_interrupted_download_says_so_and_is_made_good(
    hub: HubStub, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    hold(hub, saved_aligner(lora=True))
    hub.cut = {"model.safetensors"}
    broken = pull(hub, tmp_path / "home")
    assert broken.returncode != 0
    assert "SourceError" in broken.stderr
    hub.cut = set()
    assert pull(hub, tmp_path / "home").returncode == 0


def test_a_file_that_was_tampered_with_is_refused(
    hub: HubStub, tmp_path: Path, saved_aligner: Callable[..., Path]
) -> None:
    hold(hub, saved_aligner(lora=True))
    hub.repos[REPO]["model.safetensors"] = hub.repos[REPO]["model.safetensors"][:100]
    broken = pull(hub, tmp_path / "home")
    assert broken.returncode != 0
    assert "AlignerMismatchError" in broken.stderr
    assert "fetch it again" in broken.stderr


def test_an_unknown_repository_names_the_embedded_way_out(hub: HubStub, tmp_path: Path) -> None:
    result = pull(hub, tmp_path / "home")
    assert result.returncode != 0
    assert "all-minilm-l6-v2" in result.stderr


def test_pushing_what_is_no_aligner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MixupError, match="not an aligner checkpoint"):  # before the hub is asked
        push_folder(tmp_path, REPO)
