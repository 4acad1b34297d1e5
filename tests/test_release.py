"""What is released: the sdist holds its own tests, the wheel the aligner, and both are small."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST_WHEEL = 30e6  # bytes


def test_the_sdist_holds_its_own_tests_and_the_gate() -> None:
    sdist = pytest.importorskip("hatchling.builders.sdist")
    files = {
        each.distribution_path for each in sdist.SdistBuilder(str(ROOT)).recurse_project_files()
    }
    assert {".ci/run", "README.md", "LICENSE", "tests/hub_stub.py", "recipes/minimal.py"} <= files
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    assert tests and tests <= files
    assert not [name for name in files if ".pyc" in name or name.startswith(("runs/", ".venv/"))]


def test_the_wheel_holds_the_aligner_and_is_small() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    files = list(wheel.WheelBuilder(str(ROOT)).recurse_project_files())
    names = {each.distribution_path for each in files}
    aligner = "mixup_hf/inverter/embedded_aligner"
    assert {"mixup_hf/py.typed", f"{aligner}/model.safetensors", f"{aligner}/config.json"} <= names
    assert {name.split("/")[0] for name in names} == {"mixup_hf"}
    assert sum(Path(each.path).stat().st_size for each in files) < LARGEST_WHEEL


def test_the_citation_names_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"version = {{{version}}}" in (ROOT / "README.md").read_text(encoding="utf-8")
